//! What looks at jobs.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::super::Manager;
use super::answer::{answer, answer_in_text};

type Jobs = State<Arc<Manager>>;

const OK: StatusCode = StatusCode::OK;

pub(super) async fn jobs(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, _| Ok(manager.list())).await
}

pub(super) async fn job(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, asked| Ok(manager.job(&asked.id)?)).await
}

pub(super) async fn file(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, asked| {
        let version = asked.number("version", 1, u64::MAX)?;
        Ok(manager.file(&asked.id, version)?)
    })
    .await
}

pub(super) async fn plan(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, asked| Ok(manager.plan(&asked.id)?)).await
}

pub(super) async fn status(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, asked| Ok(manager.status(&asked.id)?)).await
}

pub(super) async fn metrics(State(manager): Jobs, request: Request) -> Response {
    answer_in_text(manager, request, |manager, asked| Ok(manager.metrics(&asked.id)?)).await
}

pub(super) async fn letters(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, asked| {
        let limit = asked.number("limit", 1, 1000)?.unwrap_or(100);
        Ok(manager.letters(&asked.id, limit as u32)?)
    })
    .await
}

pub(super) async fn history(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, asked| {
        let limit = asked.number("limit", 1, 100_000)?.unwrap_or(1000);
        Ok(manager.history(&asked.id, limit as usize)?)
    })
    .await
}

pub(super) async fn logs(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, asked| {
        let tail = asked.number("tail", 1, 100_000)?.unwrap_or(200);
        let after = asked.number("after", 0, u64::MAX)?;
        Ok(manager.log(&asked.id, tail as usize, after)?)
    })
    .await
}

pub(super) async fn savepoints(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, asked| Ok(manager.savepoints(&asked.id)?)).await
}

pub(super) async fn savepoint(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, OK, |manager, asked| Ok(manager.savepoint(&asked.id, &asked.trigger)?)).await
}
