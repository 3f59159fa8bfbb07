//! What changes jobs.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::super::Manager;
use super::answer::{answer, answer_with};

type Jobs = State<Arc<Manager>>;

pub(super) async fn submit(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, StatusCode::CREATED, |manager, asked| Ok(manager.submit(asked.body()?, &asked.who)?)).await
}

pub(super) async fn check(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, StatusCode::OK, |manager, asked| Ok(manager.check(&asked.body()?)?)).await
}

pub(super) async fn stop(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, StatusCode::ACCEPTED, |manager, asked| {
        Ok(manager.stop(&asked.id, &asked.body()?, &asked.who)?)
    })
    .await
}

pub(super) async fn start(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, StatusCode::ACCEPTED, |manager, asked| Ok(manager.start(&asked.id, &asked.who)?)).await
}

pub(super) async fn restart(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, StatusCode::ACCEPTED, |manager, asked| {
        Ok(manager.restart(&asked.id, &asked.body()?, &asked.who)?)
    })
    .await
}

pub(super) async fn upgrade(State(manager): Jobs, request: Request) -> Response {
    answer_with(manager, request, |manager, asked| {
        let dry_run = asked.flag("dry_run")?;
        let upgrade = manager.upgrade(&asked.id, asked.body()?, dry_run, &asked.who)?;
        Ok((if dry_run { StatusCode::OK } else { StatusCode::ACCEPTED }, upgrade))
    })
    .await
}

pub(super) async fn savepoint(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, StatusCode::ACCEPTED, |manager, asked| {
        Ok(manager.save(&asked.id, &asked.body()?, &asked.who)?)
    })
    .await
}

pub(super) async fn delete(State(manager): Jobs, request: Request) -> Response {
    answer(manager, request, StatusCode::OK, |manager, asked| {
        Ok(manager.delete(&asked.id, asked.flag("force")?, &asked.who)?)
    })
    .await
}
