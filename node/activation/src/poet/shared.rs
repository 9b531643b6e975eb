//! One question at a time, and one answer for all who wait for it.

use std::{future::Future, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::PoetError;

/// The last answer to a question of kind `K`. Twenty identities that ask at once ask once, and share failures as well: a server that
/// is down is not waited for twenty times in a row.
#[derive(Debug)]
pub(super) struct Shared<K, T>(Mutex<Option<Last<K, T>>>);

#[derive(Debug)]
struct Last<K, T> {
    question: K,
    at: Instant,
    answer: Result<T, PoetError>,
}

impl<K, T> Default for Shared<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: PartialEq, T: Clone> Shared<K, T> {
    /// The answer of the last one who asked, if it came while this one waited or is a good one younger than `keep`; else what `ask`
    /// brings.
    pub(super) async fn get(
        &self,
        question: K,
        keep: Duration,
        ask: impl Future<Output = Result<T, PoetError>>,
    ) -> Result<T, PoetError> {
        let since = Instant::now();
        let mut last = self.0.lock().await;
        if let Some(last) = &*last
            && last.question == question
            && (last.at >= since || (last.answer.is_ok() && last.at.elapsed() < keep))
        {
            return last.answer.clone();
        }
        let answer = ask.await;
        *last = Some(Last { question, at: Instant::now(), answer: answer.clone() });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_share_what_comes() {
        let (shared, asked) = (Arc::new(Shared::default()), Arc::new(AtomicU32::new(0)));
        let ask = |question: u8, keep: u64, good: bool| {
            let (shared, asked) = (shared.clone(), asked.clone());
            tokio::spawn(async move {
                let answer = async {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    let number = asked.fetch_add(1, Ordering::Relaxed);
                    if good { Ok(number) } else { Err(PoetError::NoMembers) }
                };
                shared.get(question, Duration::from_secs(keep), answer).await
            })
        };
        let failing: Vec<_> = (0..20).map(|_| ask(1, 100, false)).collect();
        for task in failing {
            assert_eq!(task.await.unwrap(), Err(PoetError::NoMembers));
        }
        // a failure is not kept for those who come later, a good answer is for its time
        tokio::time::sleep(Duration::from_millis(1)).await;
        for _ in 0..3 {
            assert_eq!(ask(1, 100, true).await.unwrap(), Ok(1));
        }
        // neither for another question nor for one who wants a younger answer
        assert_eq!(ask(2, 100, true).await.unwrap(), Ok(2));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(ask(2, 100, true).await.unwrap(), Ok(2));
        assert_eq!(ask(2, 5, true).await.unwrap(), Ok(3));
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }
}
