//! The connections of a listener, no more than a number at once: others wait in the system's queue.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// The wait after a connection could not be taken, for want of file descriptors as a rule.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection, and its place among those there may be.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
}

type Next = Pin<Box<dyn Future<Output = (TcpListener, Connection)> + Send>>;

/// Connections as they come. Dropped, the listener is closed.
pub(crate) struct Incoming {
    next: Next,
    places: Arc<Semaphore>,
}

impl Incoming {
    /// At most `most` connections at once.
    pub(crate) fn new(listener: TcpListener, most: usize) -> Self {
        let places = Arc::new(Semaphore::new(most));
        Self { next: Box::pin(accept(listener, places.clone())), places }
    }
}

async fn accept(listener: TcpListener, places: Arc<Semaphore>) -> (TcpListener, Connection) {
    // nobody closes it, so there is a place in the end
    let place = places.acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                return (listener, Connection { stream, _place: place });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (listener, connection) = ready!(self.next.as_mut().poll(context));
        self.next = Box::pin(accept(listener, self.places.clone()));
        Poll::Ready(Some(Ok(connection)))
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, time::timeout};
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut incoming = Incoming::new(listener, 2);
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let first = incoming.next().await.expect("the first");
        let _second = incoming.next().await.expect("the second");
        assert!(timeout(Duration::from_millis(100), incoming.next()).await.is_err());
        drop(first);
        let third = timeout(Duration::from_secs(5), incoming.next()).await.expect("a place").expect("the third");
        let peer = third.expect("a connection").connect_info().remote_addr();
        assert_eq!(peer, clients[2].local_addr().ok());
        // with the listener, connections that nobody took end
        drop(incoming);
        TcpStream::connect(address).await.expect_err("nobody listens");
        assert!(matches!(clients[0].read(&mut [0]).await, Ok(0) | Err(_)));
    }
}
