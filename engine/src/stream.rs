//! An answer as it comes, piece by piece.

use crate::{
    Engine, Error, Generation, Request, Stops,
    generate::{Submitted, failure},
    wait::wait,
};
use futures::Stream;
use mistralrs_core::Response;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Piece {
    /// Text that follows what came before; never empty.
    Text(String),
    /// The whole answer and what it took, after its last text.
    Done(Box<Generation>),
}

/// An answer that is being made: a [`Stream`] of pieces. Dropping it ends the request.
pub struct Answer<'a> {
    engine: &'a Engine,
    submitted: Submitted,
    stops: Stops,
    /// The engine's number of the sequence.
    sequence: Option<usize>,
    text: String,
    state: State,
}

/// How far an answer is.
enum State {
    /// More text may come.
    Runs,
    /// All text has been passed on.
    Said,
    /// Nothing is left to pass on.
    Over,
}

impl Engine {
    /// Generates greedily for one request, beside all others, and gives the answer as it comes.
    ///
    /// # Errors
    /// [`Error::TooLong`], or a configuration of the request's own that does not fit; what fails later is a piece.
    pub async fn stream(&self, request: &Request) -> Result<Answer<'_>, Error> {
        Ok(Answer {
            engine: self,
            submitted: self.submit(request, true).await?,
            stops: Stops::new(&request.stop),
            sequence: None,
            text: String::new(),
            state: State::Runs,
        })
    }
}

impl Answer<'_> {
    /// The next piece; `None` once it has ended.
    pub async fn next(&mut self) -> Option<Result<Piece, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// As [`Answer::next`], waiting on this thread.
    pub fn next_blocking(&mut self) -> Option<Result<Piece, Error>> {
        wait(self.next())
    }

    /// Takes in what the engine says, `None` if it says no more: text to pass on.
    fn take(&mut self, response: Option<Response>) -> Result<String, Error> {
        let (text, ends) = match response {
            Some(Response::CompletionChunk(chunk)) => {
                self.sequence = chunk.id.parse().ok();
                let choice = chunk.choices.into_iter().next();
                let choice = choice.ok_or_else(|| wrong("the engine answered without a choice"))?;
                if choice.finish_reason.as_deref() == Some("canceled") {
                    return Err(wrong("the engine gave this request up"));
                }
                (choice.text, choice.finish_reason.is_some())
            }
            Some(other) => return Err(failure(other)),
            None if self.sequence.is_none() || self.engine.is_stopped() => {
                return Err(Error::Stopped);
            }
            // An answer that ends in the middle of a character has no last response.
            None => (String::new(), true),
        };
        let (mut text, stopped) = self.stops.push(&text);
        if ends && !stopped {
            text += &self.stops.rest();
        }
        if ends || stopped {
            self.state = State::Said;
            // The engine sees a closed channel, and drops the sequence.
            self.submitted.answer.close();
        }
        self.text += &text;
        Ok(text)
    }
}

fn wrong(why: &str) -> Error {
    Error::Generation(why.into())
}

impl Stream for Answer<'_> {
    type Item = Result<Piece, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.state {
                State::Runs => {}
                State::Said => {
                    self.state = State::Over;
                    let text = std::mem::take(&mut self.text);
                    let done = self.engine.generation(&self.submitted, self.sequence, text);
                    return Poll::Ready(Some(done.map(|done| Piece::Done(Box::new(done)))));
                }
                State::Over => return Poll::Ready(None),
            }
            let response = std::task::ready!(self.submitted.answer.poll_recv(cx));
            match self.take(response) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Poll::Ready(Some(Ok(Piece::Text(text)))),
                Err(error) => {
                    self.state = State::Over;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
