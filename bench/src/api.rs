//! A kept HTTP connection to the hub, as an AI client's program would hold it.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::hub::Hub;

/// One connection.
pub(crate) struct Api {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: String,
}

/// The end of one run.
pub(crate) struct Exit {
    pub(crate) code: Option<i64>,
}

impl Api {
    pub(crate) async fn connect(hub: &Hub) -> Result<Self> {
        let host = hub.http.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host, token: hub.token()? })
    }

    /// Runs a command on nodes and reads the stream to its end.
    pub(crate) async fn exec(&mut self, nodes: &[String], argv: &[&str]) -> Result<Vec<Exit>> {
        let body = serde_json::json!({ "nodes": nodes, "argv": argv }).to_string();
        let mut response = self.post("/api/v1/runs", body).await?;
        ensure!(response.status().is_success(), "exec: {}", response.status());
        let mut exits = Vec::new();
        let mut rest = Vec::new();
        while let Some(frame) = response.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line)?;
                match event["type"].as_str() {
                    Some("exit") => exits.push(Exit { code: event["code"].as_i64() }),
                    Some("refused") => anyhow::bail!("refused: {event}"),
                    Some(_) | None => {}
                }
            }
        }
        ensure!(exits.len() == nodes.len(), "{} of {} runs ended", exits.len(), nodes.len());
        Ok(exits)
    }

    /// Starts a run that goes on by itself; its id.
    pub(crate) async fn start(&mut self, node: &str, argv: &[&str]) -> Result<String> {
        let body = serde_json::json!({ "nodes": [node], "argv": argv }).to_string();
        let request = self.request(Method::POST, "/api/v1/runs").header("content-type", "application/json");
        let response = self.send(request.body(Full::new(body.into()))?).await?;
        let answer: Value = serde_json::from_slice(&response.collect().await?.to_bytes())?;
        Ok(answer["runs"][0]["id"].as_str().with_context(|| format!("{answer}"))?.to_owned())
    }

    /// Reads a run's bytes to their end, following it; how many there were.
    pub(crate) async fn read_output(&mut self, run: &str) -> Result<u64> {
        let path = format!("/api/v1/runs/{run}/output?follow=true");
        let request = self.request(Method::GET, &path).header("accept", "application/octet-stream");
        let mut response = self.send(request.body(Full::default())?).await?;
        ensure!(response.status().is_success(), "output: {}", response.status());
        let mut bytes = 0;
        while let Some(frame) = response.frame().await {
            bytes += frame?.into_data().map_or(0, |data| data.len() as u64);
        }
        Ok(bytes)
    }

    /// A fresh invite.
    pub(crate) async fn invite(&mut self) -> Result<String> {
        let answer = self.change(Method::POST, "/api/v1/invites", "{}".to_owned()).await?;
        Ok(answer["invite"].as_str().with_context(|| format!("{answer}"))?.to_owned())
    }

    /// Sends JSON and reads JSON; null when the answer is empty.
    pub(crate) async fn change(&mut self, method: Method, path: &str, body: String) -> Result<Value> {
        let request = self.request(method, path).header("content-type", "application/json");
        let response = self.send(request.body(Full::new(body.into()))?).await?;
        let status = response.status();
        let body = response.collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        if body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&body)?) }
    }

    /// A JSON resource.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
        let request = self.request(Method::GET, path).body(Full::default())?;
        let response = self.send(request).await?;
        Ok(serde_json::from_slice(&response.collect().await?.to_bytes())?)
    }

    async fn post(&mut self, path: &str, body: String) -> Result<http::Response<Incoming>> {
        let request = self
            .request(Method::POST, path)
            .header("accept", "application/x-ndjson")
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        self.send(request).await
    }

    /// Sends when the answer before was taken in whole.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<http::Response<Incoming>> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let bearer = format!("Bearer {}", self.token);
        Request::builder().method(method).uri(path).header("host", &self.host).header("authorization", bearer)
    }
}
