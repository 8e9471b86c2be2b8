//! Every call of the node port with every kind of caller, over real TLS. What each is answered is
//! worked out from its row in `cortex_hub::access`.

use std::collections::BTreeMap;
use std::io::Write as _;

use cortex_core::Code;
use cortex_hub::access::{self, Needs};
use cortex_wire::error::refusal_from_status;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::Request;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Identity};
use tonic_prost::ProstCodec;

use crate::support::{Kept, TestHub};

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    /// No certificate.
    Nobody,
    /// A certificate of another authority, for a node that is here.
    OtherAuthority,
    /// The certificate of a node that was removed.
    Revoked,
    /// The certificate of a node that two machines had.
    Quarantined,
    /// No certificate, and an API token in the metadata.
    Token,
    /// A good certificate, and an API token in the metadata.
    NodeWithToken,
    /// An invite as a bearer.
    InviteAsBearer,
    /// A good certificate.
    Node,
}

const COLUMNS: &[Column] = &[
    Column::Nobody,
    Column::OtherAuthority,
    Column::Revoked,
    Column::Quarantined,
    Column::Token,
    Column::NodeWithToken,
    Column::InviteAsBearer,
    Column::Node,
];

/// What one is answered to a message that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The connection is refused.
    NoConnection,
    /// Refused with this.
    Refused(Code),
    /// Looked at: what it lacks is in the message.
    Judged,
}

fn expected(needs: Needs, column: Column) -> Answer {
    match column {
        Column::OtherAuthority => Answer::NoConnection,
        Column::Token | Column::NodeWithToken | Column::InviteAsBearer => {
            Answer::Refused(Code::WrongAudience)
        }
        // The invite, or the signature, is in the message: a certificate neither helps nor harms.
        Column::Nobody | Column::Revoked | Column::Quarantined | Column::Node
            if matches!(needs, Needs::Invite | Needs::RecoveryKey) =>
        {
            Answer::Judged
        }
        Column::Nobody => Answer::Refused(Code::Unauthenticated),
        Column::Revoked => Answer::Refused(Code::NodeRevoked),
        Column::Quarantined => Answer::Refused(Code::ClonedIdentity),
        Column::Node => Answer::Judged,
    }
}

/// A certificate that another authority made for whoever asks.
fn foreign() -> Identity {
    let key = || KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
    let own = key();
    let params = CertificateParams::new(vec!["node.cortex.internal".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&own, &authority).expect("signed");
    Identity::from_pem(certificate.pem(), own.serialize_pem())
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Nothing: the connection broke.
    Broken,
    /// A refusal.
    Refused(Code),
    /// An answer that ended well.
    Answered,
}

/// Calls with a message that says nothing.
async fn call(channel: Channel, service: &str, method: &str, bearer: Option<&str>) -> Told {
    let mut grpc = Grpc::new(channel);
    if grpc.ready().await.is_err() {
        return Told::Broken;
    }
    let mut request = Request::new(tokio_stream::iter([()]));
    if let Some(bearer) = bearer {
        let value = format!("Bearer {bearer}").parse().expect("metadata");
        MetadataMap::insert(request.metadata_mut(), "authorization", value);
    }
    let path = format!("/{service}/{method}").parse().expect("a path");
    let answer = grpc.streaming(request, path, ProstCodec::<(), ()>::default()).await;
    let status = match answer {
        Err(status) => status,
        Ok(stream) => match stream.into_inner().message().await {
            Err(status) => status,
            Ok(_) => return Told::Answered,
        },
    };
    // A broken connection has the error of the transport behind it.
    if std::error::Error::source(&status).is_some() {
        return Told::Broken;
    }
    Told::Refused(refusal_from_status(&status).code)
}

#[tokio::test]
async fn every_call_answers_every_kind_of_caller_as_its_row_says() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (good, gone, cloned) = (hub.node("a").await, hub.node("b").await, hub.node("c").await);
    let removed = cortex_core::node::Node {
        removed_at: Some(hub.context.clock.wall()),
        ..cortex_core::node::Node::clone(&hub.record(&gone))
    };
    hub.context.directory.put_node(removed);
    hub.context.directory.quarantine(cloned.id);
    let token = format!("cxt_{}", "0".repeat(64));
    let shown: BTreeMap<Column, (Option<Identity>, Option<&str>)> = [
        (Column::Nobody, (None, None)),
        (Column::OtherAuthority, (Some(foreign()), None)),
        (Column::Revoked, (Some(gone.identity.clone()), None)),
        (Column::Quarantined, (Some(cloned.identity.clone()), None)),
        (Column::Token, (None, Some(token.as_str()))),
        (Column::NodeWithToken, (Some(good.identity.clone()), Some(token.as_str()))),
        (Column::InviteAsBearer, (None, Some("CXI1.aa.bb.cc"))),
        (Column::Node, (Some(good.identity.clone()), None)),
    ]
    .into();
    let mut asked = 0;
    for (service, method, entry) in access::calls() {
        for column in COLUMNS {
            let (identity, bearer) = &shown[column];
            let told = match hub.try_channel(identity.clone()).await {
                Some(channel) => call(channel, service, method, *bearer).await,
                None => Told::Broken,
            };
            let what = format!("{service}/{method} {column:?}: {told:?}");
            match expected(entry.needs, *column) {
                Answer::NoConnection => assert_eq!(told, Told::Broken, "{what}"),
                Answer::Refused(code) => assert_eq!(told, Told::Refused(code), "{what}"),
                Answer::Judged => {
                    let closed = [Code::Unauthenticated, Code::WrongAudience, Code::Forbidden];
                    let past = match told {
                        Told::Refused(code) => !closed.contains(&code),
                        Told::Answered => true,
                        Told::Broken => false,
                    };
                    assert!(past, "{what}");
                }
            }
            asked += 1;
        }
    }
    let calls = access::calls().count();
    assert!(asked == calls * COLUMNS.len() && calls >= 2, "{asked}");
    let line = format!("matrix: {calls} calls x {} kinds of caller: {asked} answers\n", COLUMNS.len());
    std::io::stdout().write_all(line.as_bytes()).expect("standard output");
    hub.stop().await;
}
