//! Own messages that no peer was there for: they are sent again as soon as one subscribes to their topic.

use std::collections::VecDeque;

use metrics::counter;

use super::Topic;

/// The most messages that wait.
const MESSAGES: usize = 256;

/// The most bytes of them.
const BYTES: usize = 16 << 20;

/// Messages in the order they were published.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    messages: VecDeque<(Topic, Vec<u8>)>,
    bytes: usize,
}

impl Waiting {
    /// Keeps a message; the oldest make room for it.
    pub(crate) fn push(&mut self, topic: Topic, message: Vec<u8>) {
        self.bytes += message.len();
        self.messages.push_back((topic, message));
        while self.messages.len() > MESSAGES || self.bytes > BYTES {
            let Some((topic, oldest)) = self.messages.pop_front() else { break };
            self.bytes -= oldest.len();
            counter!("spacemesh_p2p_unsent_messages_dropped", "protocol" => topic.name()).increment(1);
        }
    }

    /// Takes the messages of a topic out.
    pub(crate) fn take(&mut self, topic: Topic) -> Vec<Vec<u8>> {
        let (taken, kept): (VecDeque<_>, VecDeque<_>) = self.messages.drain(..).partition(|(of, _)| *of == topic);
        self.messages = kept;
        let taken: Vec<_> = taken.into_iter().map(|(_, message)| message).collect();
        self.bytes -= taken.iter().map(Vec::len).sum::<usize>();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_wait_for_their_topic() {
        let mut waiting = Waiting::default();
        waiting.push(Topic::Atx, vec![1]);
        waiting.push(Topic::Malfeasance, vec![2]);
        waiting.push(Topic::Atx, vec![3]);
        assert_eq!(waiting.take(Topic::Atx), [[1], [3]]);
        assert!(waiting.take(Topic::Atx).is_empty());
        assert_eq!((waiting.bytes, waiting.take(Topic::Malfeasance)), (1, vec![vec![2]]));
    }

    #[test]
    fn the_oldest_make_room() {
        let mut waiting = Waiting::default();
        for n in 0..=MESSAGES {
            waiting.push(Topic::Atx, n.to_le_bytes().to_vec());
        }
        let taken = waiting.take(Topic::Atx);
        assert_eq!((taken.len(), &taken[0]), (MESSAGES, &1_usize.to_le_bytes().to_vec()));
        for n in 0..9 {
            waiting.push(Topic::Atx, vec![n; 2 << 20]);
        }
        assert_eq!(waiting.take(Topic::Atx).iter().map(|message| message[0]).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
