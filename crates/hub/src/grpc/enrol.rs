//! `EnrolmentService`: translates requests to join and to recover.

use bytes::Bytes;
use cortex_core::{Code, Refusal};
use cortex_wire::error::refusal_into_status;
use cortex_wire::mesh::enrolment_service_server::EnrolmentService;
use cortex_wire::mesh::{EnrolRequest, EnrolResponse, RecoverRequest, RecoverResponse};
use tonic::{Request, Response, Status};

use super::attach::refuse_token;
use super::connection::Peer;
use crate::service::enrol::recover::{Answer, Recover, Recovering};
use crate::service::enrol::{Enrol, Joined, Joining};

/// The service.
pub(super) struct Door {
    enrol: Enrol,
    recover: Recover,
}

impl Door {
    pub(super) const fn new(enrol: Enrol, recover: Recover) -> Self {
        Self { enrol, recover }
    }
}

#[tonic::async_trait]
impl EnrolmentService for Door {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let peer = peer(&request)?;
        let EnrolRequest { invite_id, secret, name, csr_der, protocol, recovery_key_der } =
            request.into_inner();
        let recovery_key = (!recovery_key_der.is_empty()).then_some(recovery_key_der);
        let joining = Joining { invite: invite_id, secret, name, csr_der, protocol, recovery_key };
        let joined = self.enrol.join(joining, peer.address).await;
        joined.map(|joined| Response::new(response(joined))).map_err(|refusal| refusal_into_status(&refusal))
    }

    async fn recover(&self, request: Request<RecoverRequest>) -> Result<Response<RecoverResponse>, Status> {
        let peer = peer(&request)?;
        let RecoverRequest { node_id, csr_der, counter, signature, protocol } = request.into_inner();
        let asked = Recovering { node: node_id, csr_der, counter, signature, protocol };
        let answer = self.recover.recover(asked, peer.address).await;
        answer.map(|answer| Response::new(recovered(answer))).map_err(|refusal| refusal_into_status(&refusal))
    }
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    refuse_token(request.metadata())?;
    let peer = request.extensions().get::<Peer>().cloned();
    peer.ok_or_else(|| refusal_into_status(&Refusal::new(Code::Internal, "No connection info.")))
}

fn response(joined: Joined) -> EnrolResponse {
    EnrolResponse {
        node_id: Bytes::copy_from_slice(joined.node.as_bytes()),
        name: joined.name.to_string(),
        certificate_chain_der: joined.chain_der.into_iter().map(Bytes::from).collect(),
        generation: joined.generation.0,
        recoveries_left: joined.recoveries_left,
        proof: joined.proof.into(),
    }
}

fn recovered(answer: Answer) -> RecoverResponse {
    RecoverResponse {
        certificate_chain_der: answer.chain_der.into_iter().map(Bytes::from).collect(),
        counter: answer.counter,
        recoveries_left: answer.left,
        proof: answer.proof.into(),
    }
}
