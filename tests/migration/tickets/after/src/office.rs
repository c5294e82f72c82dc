//! The handlers.

use std::pin::Pin;

use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::identity::Holder;
use crate::shows::{Refused, Shows};
use crate::v1::box_office_server::BoxOffice;
use crate::v1::{Booking, Imported, Seats, Show, Ticket};

/// Sells the seats of its shows.
#[derive(Debug, Clone, Default)]
pub struct Office {
    shows: Shows,
}

impl Office {
    /// Sells the seats of these shows.
    pub fn of(shows: Shows) -> Self {
        Self { shows }
    }

    fn sell(&self, booking: Booking, holder: &Holder) -> Result<Ticket, Status> {
        let first_seat = self.shows.book(&booking.show, booking.seats)?;
        Ok(Ticket {
            show: booking.show,
            first_seat,
            seats: booking.seats,
            holder: holder.0.clone(),
        })
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoSuchShow(_) => Self::not_found(refused.to_string()),
            Refused::TooFewSeats { .. } => Self::failed_precondition(refused.to_string()),
        }
    }
}

#[tonic::async_trait]
impl BoxOffice for Office {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Seats, Status>> + Send>>;
    type QueueStream = Pin<Box<dyn Stream<Item = Result<Ticket, Status>> + Send>>;

    async fn book(&self, request: Request<Booking>) -> Result<Response<Ticket>, Status> {
        let holder = Holder::of(&request);
        let mut response = Response::new(self.sell(request.into_inner(), &holder)?);
        let version = env!("CARGO_PKG_VERSION").parse().map_err(|_| {
            Status::internal("the version of this office cannot be written into metadata")
        })?;
        response.metadata_mut().insert("office-version", version);
        Ok(response)
    }

    async fn watch(&self, request: Request<Show>) -> Result<Response<Self::WatchStream>, Status> {
        let left = self.shows.watch(&request.get_ref().name)?;
        let left = WatchStream::new(left).map(|left| Ok(Seats { left }));
        Ok(Response::new(Box::pin(left)))
    }

    async fn import(
        &self,
        request: Request<Streaming<Show>>,
    ) -> Result<Response<Imported>, Status> {
        let mut coming = request.into_inner();
        let mut shows = 0;
        while let Some(show) = coming.message().await? {
            self.shows.put_on(&show.name, show.seats);
            shows += 1;
        }
        Ok(Response::new(Imported { shows }))
    }

    async fn queue(
        &self,
        request: Request<Streaming<Booking>>,
    ) -> Result<Response<Self::QueueStream>, Status> {
        let holder = Holder::of(&request);
        let office = self.clone();
        let tickets = request
            .into_inner()
            .map(move |booking| office.sell(booking?, &holder));
        Ok(Response::new(Box::pin(tickets)))
    }
}
