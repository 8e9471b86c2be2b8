//! `EnrolmentService`: translates a request to join.

use bytes::Bytes;
use cortex_core::{Code, Refusal};
use cortex_wire::error::refusal_into_status;
use cortex_wire::mesh::enrolment_service_server::EnrolmentService;
use cortex_wire::mesh::{EnrolRequest, EnrolResponse};
use tonic::{Request, Response, Status};

use super::attach::refuse_token;
use super::connection::Peer;
use crate::service::enrol::{Enrol, Joined, Joining};

/// The service.
pub(super) struct Door {
    enrol: Enrol,
}

impl Door {
    pub(super) const fn new(enrol: Enrol) -> Self {
        Self { enrol }
    }
}

#[tonic::async_trait]
impl EnrolmentService for Door {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        refuse_token(request.metadata())?;
        let peer = request.extensions().get::<Peer>().cloned();
        let peer =
            peer.ok_or_else(|| refusal_into_status(&Refusal::new(Code::Internal, "No connection info.")))?;
        let EnrolRequest { invite_id, secret, name, csr_der, protocol } = request.into_inner();
        let joining = Joining { invite: invite_id, secret, name, csr_der, protocol };
        let joined =
            self.enrol.join(joining, peer.address).await.map_err(|refusal| refusal_into_status(&refusal))?;
        Ok(Response::new(response(joined)))
    }
}

fn response(joined: Joined) -> EnrolResponse {
    EnrolResponse {
        node_id: Bytes::copy_from_slice(joined.node.as_bytes()),
        name: joined.name.to_string(),
        certificate_chain_der: joined.chain_der.into_iter().map(Bytes::from).collect(),
        generation: joined.generation.0,
    }
}
