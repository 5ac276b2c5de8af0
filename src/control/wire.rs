//! What two processes say to each other in a hand-over: lines of JSON, and sockets beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::listener::{Kind, Lent};
use crate::stores::blocks::Block;

/// Sockets in one message; the kernel takes 253.
const BATCH: usize = 64;
/// Longest line beside them.
const LINE: usize = 16 << 10;

/// Blocks as they stand now; ended ones are lifted. The first says that the new process takes requests, and its answer that the
/// old one has heard it: before that each of them may still fail, and the other goes on alone.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fed {
    /// Counts the messages.
    pub number: u64,
    /// The blocks.
    pub blocks: Vec<Block>,
}

/// What a draining process has made of a [`Fed`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Swept {
    /// Of that message.
    pub number: u64,
    /// Streams cut.
    pub cut: usize,
    /// Every worker has answered.
    pub confirmed: bool,
}

/// What a running gateway says to one that takes over.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The sockets of this message.
    Given(Names),
    /// An answer to a [`Fed`].
    Swept(Swept),
    /// It keeps everything, or has taken it back: why.
    Kept(String),
}

/// Names the sockets of one message, in their order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Names {
    /// Kind, address, and whether a supervisor holds it too.
    doors: Vec<(String, SocketAddr, bool)>,
    /// Another message follows.
    more: bool,
}

/// A value as one line.
pub fn line(value: &impl Serialize) -> String {
    // Numbers, words and lists of our own: nothing that JSON cannot say.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// Sends sockets.
///
/// # Errors
/// The system's.
pub async fn give(stream: &UnixStream, doors: &[Lent]) -> io::Result<()> {
    let batches: Vec<&[Lent]> = if doors.is_empty() { vec![&[]] } else { doors.chunks(BATCH).collect() };
    let last = batches.len() - 1;
    for (number, batch) in batches.into_iter().enumerate() {
        let name = |door: &Lent| (door.kind.word().to_owned(), door.address, door.outlives);
        let names = batch.iter().map(name).collect();
        let said = line(&Said::Given(Names { doors: names, more: number < last }));
        let descriptors: Vec<BorrowedFd<'_>> = batch.iter().map(|door| door.socket.as_fd()).collect();
        stream.writable().await?;
        stream
            .async_io(tokio::io::Interest::WRITABLE, || send(stream, said.as_bytes(), &descriptors))
            .await?;
    }
    Ok(())
}

fn send(stream: &UnixStream, said: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many sockets at once"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(said)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == said.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Takes the sockets that a running gateway gives.
///
/// # Errors
/// When it gives none, breaks off, or says what we do not understand.
pub fn take(stream: &StdStream) -> io::Result<Vec<Lent>> {
    let mut doors = Vec::new();
    loop {
        let (said, descriptors) = receive(stream)?;
        let names = match said {
            Said::Given(names) => names,
            Said::Kept(why) => return Err(io::Error::other(why)),
            Said::Swept(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "no sockets")),
        };
        if names.doors.len() != descriptors.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "sockets are missing"));
        }
        for ((word, address, outlives), descriptor) in names.doors.into_iter().zip(descriptors) {
            let unknown = || io::Error::new(io::ErrorKind::InvalidData, "a socket of an unknown kind");
            let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(unknown)?;
            doors.push(Lent { kind, address, socket: descriptor.into(), outlives });
        }
        if !names.more {
            return Ok(doors);
        }
    }
}

/// One line and the sockets beside it.
fn receive(stream: &StdStream) -> io::Result<(Said, Vec<OwnedFd>)> {
    let (mut said, mut descriptors) = (Vec::new(), Vec::new());
    // One byte after the other: what stands behind the line belongs to the next message, and so do its sockets.
    while said.last() != Some(&b'\n') {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let got = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if got.bytes == 0 || said.len() >= LINE {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        said.extend_from_slice(&byte);
    }
    Ok((serde_json::from_slice(&said)?, descriptors))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_hundred_sockets_go_over_and_listen_on() {
        let doors: Vec<Lent> = (0..100)
            .map(|n| {
                let socket = TcpListener::bind("127.0.0.1:0").unwrap();
                let kind = if n % 2 == 0 { Kind::Https } else { Kind::Http };
                Lent { kind, address: socket.local_addr().unwrap(), socket, outlives: n % 3 == 0 }
            })
            .collect();
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let taken = std::thread::spawn(move || take(&theirs).unwrap());
        give(&UnixStream::from_std(ours).unwrap(), &doors).await.unwrap();
        let told = |doors: &[Lent]| -> Vec<_> {
            doors.iter().map(|door| (door.kind, door.address, door.outlives)).collect()
        };
        let given = told(&doors);
        drop(doors);
        let taken = taken.join().unwrap();
        assert_eq!(told(&taken), given);
        assert!(given.iter().all(|(_, address, _)| std::net::TcpStream::connect(address).is_ok()));
    }

    #[test]
    fn who_breaks_off_or_talks_nonsense_gives_nothing() {
        use std::io::Write as _;
        for said in [
            &b""[..],
            b"{\"given\":{\"doors\":[]",
            b"nonsense\n",
            b"{\"given\":{\"doors\":[[\"https\",\"127.0.0.1:1\",false]],\"more\":false}}\n",
            b"{\"kept\":\"it is busy\"}\n",
            b"{\"swept\":{\"number\":1,\"cut\":0,\"confirmed\":true}}\n",
        ] {
            let (mut ours, theirs) = StdStream::pair().unwrap();
            ours.write_all(said).unwrap();
            drop(ours);
            assert!(take(&theirs).is_err(), "{said:?}");
        }
    }
}
