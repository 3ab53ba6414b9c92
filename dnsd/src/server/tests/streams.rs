//! What a client can hold of a server over TCP, by real sockets.

use super::*;
use std::time::Instant;
use tokio::net::TcpSocket;

/// Connections of one client.
const PER_CLIENT: usize = 32;

async fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

async fn is_answered(stream: &mut TcpStream) -> bool {
    let asked = stream.write_all(&framed(&question(ZONE, qtype::A))).await;
    let read = async {
        let length = stream.read_u16().await?;
        stream.read_exact(&mut vec![0; length.into()]).await
    };
    let read = timeout(LIMIT, read).await.expect("an answer or an end");
    asked.is_ok() && read.is_ok()
}

#[tokio::test]
async fn thirty_third_connection_of_a_client_takes_the_place_of_its_first_and_of_nobody_else() {
    let server = start("127.0.0.1:0");
    let mut other = connect_from("127.0.0.3", server.addr).await;
    assert!(is_answered(&mut other).await);
    let mut held = Vec::new();
    for _ in 0..=PER_CLIENT {
        let mut stream = connect_from("127.0.0.2", server.addr).await;
        assert!(is_answered(&mut stream).await, "who asks is heard");
        held.push(stream);
    }
    assert!(!is_answered(&mut held[0]).await);
    assert!(is_answered(&mut held[1]).await);
    assert!(is_answered(&mut other).await);
    assert_eq!(server.counters.tcp_refused.load(Relaxed), 1);
}

#[tokio::test]
async fn connection_on_which_nothing_is_asked_is_closed_after_ten_seconds() {
    let server = start("127.0.0.1:0");
    let mut stream = connect_from("127.0.0.1", server.addr).await;
    // Half a query is none.
    stream
        .write_all(&framed(&question(ZONE, qtype::A))[..9])
        .await
        .unwrap();
    let since = Instant::now();
    let ended = timeout(3 * LIMIT, stream.read_u8()).await.expect("it is closed");
    assert!(ended.is_err());
    assert!(since.elapsed() > LIMIT * 9 / 10, "{:?}", since.elapsed());
}

#[tokio::test]
async fn client_that_never_reads_is_cut_off_and_holds_nobody_up() {
    let server = start("127.0.0.1:0");
    let mut deaf = connect_from("127.0.0.1", server.addr).await;
    let burst = framed(&question(ZONE, qtype::NS)).repeat(100);
    let mut asked = 0;
    let cut_off = async {
        // Until the server's answers, and then our questions, have no room any more, and it ends the connection.
        while deaf.write_all(&burst).await.is_ok() {
            asked += 100;
        }
    };
    timeout(3 * LIMIT, cut_off).await.expect("it is cut off");
    assert!(asked > 0);
    assert!(is_answered(&mut connect_from("127.0.0.1", server.addr).await).await);
}
