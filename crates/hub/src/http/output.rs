//! `/api/v1/runs/{id}/output`: the exact bytes of one stream or of both in order, or lines.

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cortex_core::name::printable;
use cortex_core::rights::Right;
use cortex_core::run::Run;
use cortex_core::stream::Stream;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, header};
use serde::Deserialize;

use crate::http::Api;
use crate::http::breaking::broken_off_by;
use crate::http::extract::{Args, path_id};
use crate::http::guard::RequestId;
use crate::http::problem::{Failure, invalid};
use crate::http::run_stream::{self, Wanted};
use crate::http::runs::node_name;
use crate::http::shut_out::until_shut_out;
use crate::service::Caller;
use crate::service::runs::{Follower, Update};
use crate::service::standing::Place;

/// Which output.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct OutputArgs {
    /// With `stream`, the offset in that stream to begin at; otherwise the position in both together.
    from: u64,
    /// `stdout` or `stderr`; both in their common order when missing.
    stream: Option<String>,
    /// Wait for what is still to come. Without it the answer ends with what there is.
    follow: bool,
}

/// Output of a run: bytes, or with `Accept: application/x-ndjson` lines that end with the run.
///
/// Bytes that were lost on the way break a byte answer off, so that nobody takes it for complete; lines
/// tell the loss and go on.
#[utoipa::path(get, path = "/api/v1/runs/{id}/output", tag = "runs", params(("id" = String, Path), OutputArgs),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)))]
pub(super) async fn output(
    State(api): State<Api>,
    Extension(id): Extension<RequestId>,
    caller: Caller,
    Path(run): Path<String>,
    headers: HeaderMap,
    Args(args): Args<OutputArgs>,
) -> Result<Response, Failure> {
    let wanted = wanted(&args)?;
    let run = api.runs.get(&caller, path_id("run", &run)?).await?;
    let open = api.standing(&caller, Right::RunsRead, Place::On(run.node));
    if run_stream::wants_lines(&headers) && (args.follow || run.state.is_final()) {
        let name = node_name(&api, &run).await?;
        let shown = name.clone();
        let lines = run_stream::follow(api.runs.clone(), caller, run.id, name, wanted, id.0.clone());
        let shut = move |refusal| vec![run_stream::refused(&shown, &refusal, &id.0)];
        let lines = until_shut_out(open, lines, shut);
        return Ok(run_stream::answer(lines.take_until(api.shutdown.clone().cancelled_owned())));
    }
    if run_stream::wants_lines(&headers) {
        return Err(invalid("Lines of a run that has not ended need `follow=true`."));
    }
    let follower = api.runs.follow(&caller, run.id).await?.from(wanted.position);
    let bytes = Reader::new(follower, wanted, &run, args.follow).bytes();
    let bytes = until_shut_out(open, bytes, |refusal| vec![Err(std::io::Error::other(refusal))]);
    let bytes = broken_off_by(api.shutdown.clone().cancelled_owned(), bytes);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(bytes)).into_response())
}

fn wanted(args: &OutputArgs) -> Result<Wanted, Failure> {
    let stream = args.stream.as_deref().map(|text| {
        Stream::parse(text).ok_or_else(|| {
            invalid(format!("`stream` is `{}`; it must be stdout or stderr.", printable(text, 80)))
        })
    });
    // A byte's offset in its stream is never above its position in both, so that this begins early
    // enough, and the part before is left out.
    Ok(Wanted { stream: stream.transpose()?, offset: args.from, position: args.from })
}

/// Reads a run's bytes.
struct Reader {
    follower: Follower,
    wanted: Wanted,
    /// How far the common order of both streams was read.
    position: u64,
    /// Where to end without waiting; `None` follows the run to its end.
    end: Option<u64>,
}

impl Reader {
    fn new(follower: Follower, wanted: Wanted, run: &Run, follow: bool) -> Self {
        let end = (!follow && !run.state.is_final()).then_some(run.output.total());
        Self { follower, position: wanted.position, wanted, end }
    }

    fn bytes(self) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send {
        stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            let next = reader.next().await?;
            let go_on = next.is_ok().then_some(reader);
            Some((next, go_on))
        })
    }

    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            if self.end.is_some_and(|end| self.position >= end) {
                return None;
            }
            let update = match self.follower.next().await? {
                Ok(update) => update,
                Err(refusal) => return Some(Err(std::io::Error::other(refusal))),
            };
            match update {
                Update::Output { stream, offset, data } => {
                    self.position += data.len() as u64;
                    if let Some((_, data)) = self.wanted.part(stream, offset, &data) {
                        return Some(Ok(data));
                    }
                }
                Update::Lost(to) => {
                    let message =
                        format!("output up to stdout {} and stderr {} was lost", to.stdout, to.stderr);
                    return Some(Err(std::io::Error::other(message)));
                }
                Update::State(_) => {}
                Update::Ended(_) => return None,
            }
        }
    }
}
