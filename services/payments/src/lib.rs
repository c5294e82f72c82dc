//! The shop's till: amounts held on a card, then taken.
//!
//! Everything is in memory and no bank is behind it; what it shows is the
//! contract: two steps, idempotent by order.
#![forbid(unsafe_code)]

use parking_lot::Mutex;
use ringway_proto::shop::v1::payments_server::{Payments, PaymentsServer};
use ringway_proto::shop::v1::{
    AuthorizeReply, AuthorizeRequest, CancelPaymentReply, CancelPaymentRequest, CaptureReply,
    CaptureRequest,
};
use shop_link::{Address, Error, Recent, format_order};
use tonic::{Request, Response, Status};

/// Payments that are remembered; a repeated call about an older one is refused.
const REMEMBERED: usize = 100_000;

/// A card's token that is always declined, to try what happens then.
pub const DECLINED_CARD: &str = "declined";

/// How the service is started.
#[derive(clap::Parser, Debug)]
#[command(about = "The shop's till: amounts held on a card, then taken.")]
pub struct Args {
    /// Where to listen.
    #[arg(long, env = "SHOP_LISTEN", default_value = "127.0.0.1:50055")]
    pub listen: Address,
    /// By what else it is found.
    #[command(flatten)]
    pub names: shop_link::Names,
}

/// Serves payments until `until` is ready.
///
/// # Errors
/// Those of [`shop_link::serve`].
pub async fn serve(args: Args, until: impl Future<Output = ()> + Send) -> Result<(), Error> {
    shop_link::serve(
        &args.listen,
        &args.names,
        PaymentsServer::new(Till::default()),
        until,
    )
    .await
}

/// The handler.
#[derive(Debug)]
pub struct Till {
    payments: Mutex<Recent<Payment>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payment {
    Held { amount_cents: u64 },
    Taken { amount_cents: u64 },
    Cancelled,
}

impl Default for Till {
    fn default() -> Self {
        Self {
            payments: Mutex::new(Recent::new(REMEMBERED)),
        }
    }
}

impl Till {
    fn hold(&self, request: &AuthorizeRequest) -> Result<(), Status> {
        if request.card.is_empty() {
            return Err(Status::invalid_argument("no card: send the card's token"));
        }
        if request.card == DECLINED_CARD {
            return Err(Status::failed_precondition(
                "the card was declined: use another one",
            ));
        }
        let mut payments = self.payments.lock();
        let asked = request.amount_cents;
        match payments.get_mut(request.order) {
            None => {
                payments.insert(
                    request.order,
                    Payment::Held {
                        amount_cents: asked,
                    },
                );
                Ok(())
            }
            Some(Payment::Held { amount_cents } | Payment::Taken { amount_cents })
                if *amount_cents == asked =>
            {
                Ok(())
            }
            Some(Payment::Cancelled) => Err(cancelled(request.order)),
            Some(_) => Err(Status::already_exists(format!(
                "another amount is held for order {}: use a new order id",
                format_order(request.order)
            ))),
        }
    }

    fn take(&self, order: u64) -> Result<u64, Status> {
        let mut payments = self.payments.lock();
        let payment = payments.get_mut(order).ok_or_else(|| {
            Status::not_found(format!("nothing is held for order {}", format_order(order)))
        })?;
        match *payment {
            Payment::Held { amount_cents } | Payment::Taken { amount_cents } => {
                *payment = Payment::Taken { amount_cents };
                Ok(amount_cents)
            }
            Payment::Cancelled => Err(cancelled(order)),
        }
    }
}

fn cancelled(order: u64) -> Status {
    Status::failed_precondition(format!(
        "the payment of order {} was cancelled: use a new order id",
        format_order(order)
    ))
}

#[tonic::async_trait]
impl Payments for Till {
    async fn authorize(
        &self,
        request: Request<AuthorizeRequest>,
    ) -> Result<Response<AuthorizeReply>, Status> {
        self.hold(request.get_ref())?;
        Ok(Response::new(AuthorizeReply {}))
    }

    async fn capture(
        &self,
        request: Request<CaptureRequest>,
    ) -> Result<Response<CaptureReply>, Status> {
        let amount_cents = self.take(request.get_ref().order)?;
        Ok(Response::new(CaptureReply { amount_cents }))
    }

    async fn cancel(
        &self,
        request: Request<CancelPaymentRequest>,
    ) -> Result<Response<CancelPaymentReply>, Status> {
        self.payments
            .lock()
            .insert(request.get_ref().order, Payment::Cancelled);
        Ok(Response::new(CancelPaymentReply {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn ask(order: u64, amount_cents: u64, card: &str) -> AuthorizeRequest {
        AuthorizeRequest {
            order,
            amount_cents,
            card: card.to_owned(),
        }
    }

    #[test]
    fn what_is_held_is_taken_once_however_often_it_is_asked_for() {
        let till = Till::default();
        for _ in 0..2 {
            assert!(till.hold(&ask(1, 500, "visa")).is_ok());
        }
        for _ in 0..2 {
            assert_eq!(till.take(1).ok(), Some(500));
        }
        assert!(till.hold(&ask(1, 500, "visa")).is_ok());
    }

    #[test]
    fn refusals_name_their_reason() {
        let till = Till::default();
        let code = |result: Result<(), Status>| result.err().map(|status| status.code());
        assert_eq!(code(till.hold(&ask(1, 5, ""))), Some(Code::InvalidArgument));
        assert_eq!(
            code(till.hold(&ask(1, 5, DECLINED_CARD))),
            Some(Code::FailedPrecondition)
        );
        assert_eq!(
            till.take(1).err().map(|status| status.code()),
            Some(Code::NotFound)
        );
        assert_eq!(code(till.hold(&ask(1, 5, "visa"))), None);
        assert_eq!(
            code(till.hold(&ask(1, 6, "visa"))),
            Some(Code::AlreadyExists)
        );
    }

    #[tokio::test]
    async fn a_late_authorization_of_a_cancelled_order_is_refused() {
        let till = Till::default();
        let cancel = Request::new(CancelPaymentRequest { order: 7 });
        assert!(till.cancel(cancel).await.is_ok());
        assert!(till.hold(&ask(7, 5, "visa")).is_err());
        assert!(till.take(7).is_err());
    }
}
