//! What read(2) and write(2) work on: pipes, a Unix socket, a TCP connection.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Link, Message, exactly};

/// Blocking descriptors; a socket is both.
struct Stream {
    reader: File,
    writer: File,
}

pub(super) fn open_pipe() -> io::Result<(Box<dyn Link>, Vec<OwnedFd>)> {
    let (child_reader, writer) = io::pipe()?;
    let (reader, child_writer) = io::pipe()?;
    let link = Stream {
        reader: OwnedFd::from(reader).into(),
        writer: OwnedFd::from(writer).into(),
    };
    Ok((
        Box::new(link),
        vec![child_reader.into(), child_writer.into()],
    ))
}

pub(super) fn open_unix() -> io::Result<(Box<dyn Link>, Vec<OwnedFd>)> {
    let (parent, child) = UnixStream::pair()?;
    from_sockets(parent.into(), child.into())
}

pub(super) fn open_tcp() -> io::Result<(Box<dyn Link>, Vec<OwnedFd>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let parent = TcpStream::connect(listener.local_addr()?)?;
    let (child, address) = listener.accept()?;
    if address != parent.local_addr()? {
        return Err(io::Error::other("somebody else connected first"));
    }
    parent.set_nodelay(true)?;
    child.set_nodelay(true)?;
    from_sockets(parent.into(), child.into())
}

pub(super) fn join(descriptors: Vec<OwnedFd>) -> io::Result<Box<dyn Link>> {
    let [reader, writer] = exactly(descriptors)?;
    Ok(Box::new(Stream {
        reader: reader.into(),
        writer: writer.into(),
    }))
}

fn from_sockets(parent: OwnedFd, child: OwnedFd) -> io::Result<(Box<dyn Link>, Vec<OwnedFd>)> {
    let link = Stream {
        reader: parent.try_clone()?.into(),
        writer: parent.into(),
    };
    Ok((Box::new(link), vec![child.try_clone()?, child]))
}

impl Link for Stream {
    fn send(&mut self, message: &Message) -> io::Result<()> {
        self.writer.write_all(message)
    }

    fn receive(&mut self, _step: Duration) -> io::Result<Option<Message>> {
        let mut message = [0; size_of::<Message>()];
        self.reader.read_exact(&mut message)?;
        Ok(Some(message))
    }
}
