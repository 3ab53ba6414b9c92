//! Death notices, ready to be sent again and again: "this boot of this node is gone, and its application has stopped" (V6).

use baton_core::guardian::request::Instructions;
use baton_shared::death::DeathNotice;
use baton_shared::seal::{Header, Seal};
use std::net::UdpSocket;

/// One datagram for each recipient on each network.
pub struct Notices(Vec<Notice>);

struct Notice {
    socket: UdpSocket,
    seal: Seal,
    header: Header,
    text: Vec<u8>,
}

impl Notices {
    /// What these instructions say is to be told.
    pub fn new(instructions: &Instructions, why: &str) -> Notices {
        let mut notices = Vec::new();
        for recipient in &instructions.recipients {
            let text = DeathNotice {
                cluster: instructions.cluster,
                to: recipient.name.clone(),
                why: why.to_owned(),
            }
            .encode();
            for (network, from, to) in &recipient.places {
                let Ok(socket) = UdpSocket::bind((*from, 0)) else {
                    continue; // that network is down
                };
                // Nobody else is heard on it, and it never waits.
                if socket.set_nonblocking(true).is_err() || socket.connect(*to).is_err() {
                    continue;
                }
                notices.push(Notice {
                    socket,
                    seal: Seal::of_notices(&recipient.key),
                    header: Header {
                        sender: instructions.owner.node,
                        boot: instructions.owner.boot,
                        network: *network,
                        seq: 0,
                    },
                    text: text.clone(),
                });
            }
        }
        Notices(notices)
    }

    /// Sends each once more, under a new number.
    pub fn send(&mut self) {
        for notice in &mut self.0 {
            let _ = notice.socket.send(&notice.seal.seal(notice.header, &notice.text)); // it is repeated
            notice.header.seq += 1;
        }
    }
}
