//! A stream that must keep moving (p2p-sync.md section 8): it fails when less than 4096 bytes went through within the soft
//! time-out, and in any case when the hard time-out is over.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes that count as progress.
const PROGRESS: usize = 4096;

/// A stream with deadlines.
#[derive(Debug)]
pub(crate) struct Timed<S> {
    inner: S,
    soft: Duration,
    hard: Duration,
    /// When the hard time-out is over; unknown before the first byte is asked for or sent.
    end: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
    bytes: usize,
    since_progress: usize,
}

impl<S> Timed<S> {
    /// Time runs from the first use.
    pub(crate) fn new(inner: S, soft: Duration, hard: Duration) -> Self {
        Self { inner, soft, hard, end: None, alarm: Box::pin(sleep_until(Instant::now())), bytes: 0, since_progress: 0 }
    }

    /// Gives it another soft time-out, after a pause that was not the peer's.
    pub(crate) fn resume(&mut self) {
        self.since_progress = 0;
        let now = Instant::now();
        let end = *self.end.get_or_insert(now + self.hard);
        self.alarm.as_mut().reset((now + self.soft).min(end));
    }

    fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        io: impl FnOnce(&mut S, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.end.is_none() {
            self.resume();
        }
        if self.alarm.as_mut().poll(cx).is_ready() {
            let words = format!("stood still after {} bytes (time-outs {:?} and {:?})", self.bytes, self.soft, self.hard);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, words)));
        }
        let count = match io(&mut self.inner, cx) {
            Poll::Ready(Ok(count)) => count,
            other => return other,
        };
        self.bytes += count;
        self.since_progress += count;
        if self.since_progress >= PROGRESS {
            self.resume();
        }
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_io(cx, |inner, cx| Pin::new(inner).poll_read(cx, to))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_io(cx, |inner, cx| Pin::new(inner).poll_write(cx, from))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.get_mut().poll_io(cx, |inner, cx| Pin::new(inner).poll_flush(cx).map_ok(|()| 0));
        done.map_ok(|_| ())
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.get_mut().poll_io(cx, |inner, cx| Pin::new(inner).poll_close(cx).map_ok(|()| 0));
        done.map_ok(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::sleep;

    use super::*;

    /// Gives as many bytes as asked for, a little later; takes none.
    struct Slow(Option<Pin<Box<Sleep>>>);

    impl AsyncRead for Slow {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
            let pause = self.0.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(10))));
            std::task::ready!(pause.as_mut().poll(cx));
            self.0 = None;
            Poll::Ready(Ok(to.len()))
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// How long until reads of this size fail.
    async fn fails_after(bytes: usize, soft: Duration, hard: Duration) -> Duration {
        let mut stream = Timed::new(Slow(None), soft, hard);
        let start = Instant::now();
        let mut buffer = vec![0; bytes];
        for reads in 0.. {
            if let Err(e) = stream.read(&mut buffer).await {
                assert_eq!(e.kind(), io::ErrorKind::TimedOut);
                assert!(e.to_string().contains(&format!("after {} bytes", reads * bytes)), "{e}");
                assert!(stream.read(&mut buffer).await.is_err(), "it stays dead");
                break;
            }
        }
        start.elapsed()
    }

    #[tokio::test]
    async fn progress_buys_time_but_not_for_ever() {
        let (soft, hard) = (Duration::from_millis(500), Duration::from_millis(1500));
        // too little within the soft time-out: fifty reads at the most
        let took = fails_after(PROGRESS / 100, soft, HOUR).await;
        assert!(took >= soft, "{took:?}");
        // progress with every other read, until the hard end
        let took = fails_after(PROGRESS / 2, soft, hard).await;
        assert!(took >= hard, "{took:?}");
    }

    #[tokio::test]
    async fn time_runs_from_the_first_use_and_after_a_pause_of_ours_again() {
        let soft = Duration::from_millis(300);
        let mut stream = Timed::new(Slow(None), soft, HOUR);
        sleep(2 * soft).await;
        stream.read_exact(&mut [0; 10]).await.unwrap();
        sleep(2 * soft).await;
        stream.resume();
        stream.read_exact(&mut [0; 10]).await.unwrap();
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
