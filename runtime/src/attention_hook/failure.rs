//! One sequence's failure, or a client that has gone away, ends that sequence and no other.

use std::{future::Future, time::Duration};

use tokio::sync::mpsc::Sender;

use super::of;
use crate::{
    response::Response,
    sequence::{Sequence, SequenceState, StopReason},
};

/// How long the engine, and with it every other request, waits for a client that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for a response to be sent, whose receiver may be gone or not reading; false if it got nothing.
pub(crate) async fn patiently<T, E>(sending: impl Future<Output = Result<T, E>>) -> bool {
    match tokio::time::timeout(PATIENCE, sending).await {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            tracing::warn!("a client does not read its answer: its request ends");
            false
        }
    }
}

/// Sends a response, as [`patiently`] does.
pub(crate) async fn send(to: &Sender<Response>, response: Response) -> bool {
    patiently(to.send(response)).await
}

/// Whether a sequence has ended, well or not, and must not run on.
pub(crate) fn ended(seq: &Sequence) -> bool {
    matches!(
        seq.getstate(),
        SequenceState::Error | SequenceState::Done(_)
    )
}

/// Ends the sequences of a pass that failed in it, each with its own error, and those whose client is gone.
pub(crate) async fn end_failed(seqs: &mut [&mut Sequence]) {
    for seq in seqs.iter_mut() {
        let failure = of(seq).and_then(|state| state.failure().map(str::to_string));
        if let Some(why) = failure {
            send(&seq.responder(), Response::InternalError(why.into())).await;
            seq.set_state(SequenceState::Error);
        } else if seq.responder().is_closed() {
            seq.set_state(SequenceState::Done(StopReason::Canceled));
        }
    }
}
