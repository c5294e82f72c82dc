//! Streams from the server, from the client, and both ways.
//!
//! ```text
//! cargo run --bin streaming
//! ```
#![forbid(unsafe_code)]

use std::pin::Pin;

use ringway::{Endpoint, Server};
use ringway_examples::weather::weather_client::WeatherClient;
use ringway_examples::weather::weather_server::{Weather, WeatherServer};
use ringway_examples::weather::{Place, Reading, Summary};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Three readings of each place.
struct Station;

type Readings = Pin<Box<dyn Stream<Item = Result<Reading, Status>> + Send>>;

#[tonic::async_trait]
impl Weather for Station {
    type WatchStream = Readings;
    type SmoothStream = Readings;

    async fn watch(&self, request: Request<Place>) -> Result<Response<Readings>, Status> {
        let base: f64 = match request.into_inner().name.as_str() {
            "Oslo" => 7.0,
            name => return Err(Status::not_found(format!("no station at {name}"))),
        };
        let readings = [0.0, 0.5, 1.5].map(|warmer| {
            let celsius = base + warmer;
            Ok(Reading { celsius })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(readings))))
    }

    async fn report(
        &self,
        request: Request<Streaming<Reading>>,
    ) -> Result<Response<Summary>, Status> {
        let mut readings = request.into_inner();
        let mut mean = Mean::default();
        // A stream that breaks off is an error here, never its end.
        while let Some(reading) = readings.message().await? {
            mean.add(reading);
        }
        Ok(Response::new(Summary {
            readings: mean.count,
            mean_celsius: mean.celsius(),
        }))
    }

    async fn smooth(
        &self,
        request: Request<Streaming<Reading>>,
    ) -> Result<Response<Readings>, Status> {
        let mut mean = Mean::default();
        let smoothed = request.into_inner().map(move |reading| {
            mean.add(reading?);
            let celsius = mean.celsius();
            Ok(Reading { celsius })
        });
        Ok(Response::new(Box::pin(smoothed)))
    }
}

#[derive(Default)]
struct Mean {
    count: u32,
    sum_celsius: f64,
}

impl Mean {
    fn add(&mut self, reading: Reading) {
        self.count += 1;
        self.sum_celsius += reading.celsius;
    }

    fn celsius(&self) -> f64 {
        self.sum_celsius / f64::from(self.count.max(1))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .name("weather:50051")
        .add_service(WeatherServer::new(Station))
        .bind()
        .await?;
    tokio::spawn(server.serve());

    let channel = Endpoint::new("weather:50051")?.connect().await?;
    let mut client = WeatherClient::new(channel);

    let place = Place {
        name: "Oslo".into(),
    };
    let mut watched = client.watch(place).await?.into_inner();
    let mut readings = Vec::new();
    while let Some(reading) = watched.message().await? {
        println!("watched {:.1}", reading.celsius);
        readings.push(reading);
    }

    let summary = client.report(tokio_stream::iter(readings.clone())).await?;
    let summary = summary.into_inner();
    println!(
        "reported {} readings, {:.2} on average",
        summary.readings, summary.mean_celsius
    );

    let smoothed = client.smooth(tokio_stream::iter(readings)).await?;
    let mut smoothed = smoothed.into_inner();
    while let Some(reading) = smoothed.message().await? {
        println!("smoothed {:.2}", reading.celsius);
    }
    Ok(())
}
