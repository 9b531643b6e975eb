//! What to answer to a node (`docs/spec/post.md` section 15.2), as a state machine without input or output.
//!
//! It differs from the deployed service where that one is known to be at fault: a finished proof is given out for its own
//! challenge only, and an error is told once and then forgotten, so that the node's next request starts again.

use std::sync::Arc;

use proto::{ids::Challenge, post::Proof};

/// State of the proving service of one identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Session {
    /// Nothing to do.
    #[default]
    Idle,
    /// A proof is being made.
    Running(Challenge),
    /// A proof was made, or could not be, and nobody has asked for it since.
    Done(Challenge, Result<Arc<Proof>, String>),
}

/// What to answer to a request for a proof, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Start making this proof; answer that it is under way.
    Start(Challenge),
    /// Answer that it is under way.
    Pending,
    /// Answer with the proof.
    Proof(Challenge, Arc<Proof>),
    /// Answer with an error; the text is for the log.
    Error(String),
}

impl Session {
    /// A node asks for a proof for a challenge.
    pub fn on_request(&mut self, challenge: &[u8]) -> Answer {
        let Ok(challenge) = <[u8; 32]>::try_from(challenge).map(Challenge) else {
            return Answer::Error(format!("the challenge has {} bytes instead of 32", challenge.len()));
        };
        match std::mem::take(self) {
            Self::Running(current) => {
                *self = Self::Running(current);
                if current == challenge {
                    Answer::Pending
                } else {
                    Answer::Error(format!("busy with the proof for challenge {current}"))
                }
            }
            Self::Done(made, result) if made == challenge => match result {
                Ok(proof) => Answer::Proof(challenge, proof),
                Err(why) => Answer::Error(why),
            },
            Self::Idle | Self::Done(..) => {
                *self = Self::Running(challenge);
                Answer::Start(challenge)
            }
        }
    }

    /// The run for a challenge has ended. Ignored unless it is the current one.
    pub fn on_finished(&mut self, challenge: Challenge, result: Result<Arc<Proof>, String>) {
        if *self == Self::Running(challenge) {
            *self = Self::Done(challenge, result);
        }
    }

    /// The run for a challenge was stopped before its end.
    pub fn on_stopped(&mut self, challenge: Challenge) {
        if *self == Self::Running(challenge) {
            *self = Self::Idle;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Challenge = Challenge([1; 32]);
    const B: Challenge = Challenge([2; 32]);

    fn proof(nonce: u32) -> Arc<Proof> {
        Arc::new(Proof { nonce, indices: vec![1], pow: 2 })
    }

    #[test]
    fn every_turn_of_section_15_2() {
        let mut session = Session::default();
        assert!(matches!(session.on_request(&[1; 31]), Answer::Error(_)));
        assert_eq!(session, Session::Idle);
        assert_eq!(session.on_request(A.as_bytes()), Answer::Start(A));
        assert_eq!(session.on_request(A.as_bytes()), Answer::Pending);
        assert!(matches!(session.on_request(B.as_bytes()), Answer::Error(_)));
        assert!(matches!(session.on_request(&[]), Answer::Error(_)));
        assert_eq!(session.on_request(A.as_bytes()), Answer::Pending, "the run goes on");
        session.on_finished(A, Ok(proof(1)));
        assert!(matches!(session.on_request(&[0; 33]), Answer::Error(_)));
        assert_eq!(session.on_request(A.as_bytes()), Answer::Proof(A, proof(1)));
        assert_eq!(session, Session::Idle);
    }

    #[test]
    fn a_proof_is_for_its_own_challenge() {
        let mut session = Session::default();
        session.on_request(A.as_bytes());
        session.on_finished(A, Ok(proof(1)));
        assert_eq!(session.on_request(B.as_bytes()), Answer::Start(B));
        session.on_finished(A, Ok(proof(1)));
        assert_eq!(session, Session::Running(B), "late results are ignored");
    }

    #[test]
    fn an_error_does_not_stick() {
        let mut session = Session::default();
        session.on_request(A.as_bytes());
        session.on_finished(A, Err("broken".to_owned()));
        assert_eq!(session.on_request(A.as_bytes()), Answer::Error("broken".to_owned()));
        assert_eq!(session.on_request(A.as_bytes()), Answer::Start(A));
        session.on_finished(A, Err("broken".to_owned()));
        assert_eq!(session.on_request(B.as_bytes()), Answer::Start(B));
        session.on_stopped(B);
        assert_eq!(session, Session::Idle);
    }

    proptest! {
        #[test]
        fn proofs_are_never_given_out_for_another_challenge(steps in prop::collection::vec((0_u8..3, 0_u8..4), 0..200)) {
            let mut session = Session::default();
            for (what, which) in steps {
                let challenge = Challenge([which; 32]);
                match what {
                    0 => match session.on_request(challenge.as_bytes()) {
                        Answer::Proof(c, p) => prop_assert_eq!((c, p.nonce), (challenge, u32::from(which))),
                        Answer::Start(c) => prop_assert_eq!(c, challenge),
                        Answer::Pending => prop_assert_eq!(&session, &Session::Running(challenge)),
                        Answer::Error(_) => {}
                    },
                    1 => session.on_finished(challenge, Ok(proof(u32::from(which)))),
                    _ => session.on_finished(challenge, Err("x".to_owned())),
                }
            }
        }
    }
}
