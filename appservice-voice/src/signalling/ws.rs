//! The WebSocket: text frames in order, pings, and an end for whoever is silent, slow or does not say who they are.

mod waiting;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{
        ConnectInfo, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use voice_protocol::{SUB_PROTOCOL, WEBSOCKET_PATH};

use self::waiting::{Full, Waiting, WaitingRoom};
use super::{
    json_rpc::MESSAGE_BYTES_MAX,
    outbox::{Inbox, Outbox},
    session::{PING_INTERVAL, Session},
};
use crate::switchboard::Switchboard;

/// Silence after which a connection counts as dead: two pings without any sign.
const SILENCE_MAX: Duration = Duration::from_secs(7);
/// Time to say who one is.
const HELLO_MAX: Duration = Duration::from_secs(5);
/// How long one message may take to leave.
const SEND_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Door {
    switchboard: Arc<Switchboard>,
    waiting: WaitingRoom,
}

/// The route of the WebSocket.
pub(crate) fn routes(switchboard: Arc<Switchboard>) -> Router {
    let door = Door { switchboard, waiting: WaitingRoom::default() };
    Router::new().route(WEBSOCKET_PATH, get(open)).with_state(door)
}

/// The address is that of the client: whoever serves the router has seen to proxies.
async fn open(
    State(door): State<Door>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = upgrade.protocols([SUB_PROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return (StatusCode::BAD_REQUEST, format!("the sub-protocol {SUB_PROTOCOL} is required")).into_response();
    }
    let waiting = match door.waiting.enter(address.ip()) {
        Ok(waiting) => waiting,
        Err(Full::Altogether) => return (StatusCode::SERVICE_UNAVAILABLE, "too many connections").into_response(),
        Err(Full::FromThere) => {
            return (StatusCode::TOO_MANY_REQUESTS, "too many connections from your address").into_response();
        }
    };
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| serve(socket, door.switchboard, waiting))
}

async fn serve(mut socket: WebSocket, switchboard: Arc<Switchboard>, waiting: Waiting) {
    let (outbox, mut news) = Outbox::new();
    let mut session = Session::new(switchboard.clone(), outbox);
    let greeted = greet(&mut socket, &mut session).await;
    drop(waiting);
    let code = match greeted {
        Err(code) => code,
        Ok(()) => {
            let mut stopping = switchboard.stopping();
            converse(&mut socket, &mut session, &mut news, &mut stopping).await
        }
    };
    session.close();
    let farewell = Message::Close(Some(CloseFrame { code, reason: "".into() }));
    // The other side may be gone; nobody is left to tell.
    let _ = timeout(SEND_MAX, socket.send(farewell)).await;
}

/// Until the client said who it is.
async fn greet(socket: &mut WebSocket, session: &mut Session) -> Result<(), u16> {
    let deadline = Instant::now() + HELLO_MAX;
    while !session.is_authenticated() {
        let message = timeout_at(deadline, socket.recv()).await.map_err(|_| close_code::POLICY)?;
        // The homeserver may take longer than the client may.
        take(socket, session, message).await?;
    }
    Ok(())
}

/// Until the connection ends. Returns the code to close with.
async fn converse(
    socket: &mut WebSocket,
    session: &mut Session,
    news: &mut Inbox,
    stopping: &mut tokio::sync::watch::Receiver<bool>,
) -> u16 {
    let mut ping = interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            message = socket.recv() => {
                if let Err(code) = take(socket, session, message).await {
                    return code;
                }
                heard_at = Instant::now();
            }
            item = news.next() => match item {
                Some(text) => if send(socket, Message::Text(text.into())).await.is_err() {
                    return close_code::AWAY;
                },
                // The switchboard let go of a reader that is too slow.
                None => return close_code::POLICY,
            },
            _ = ping.tick() => {
                if heard_at.elapsed() > SILENCE_MAX || send(socket, Message::Ping(Default::default())).await.is_err() {
                    return close_code::AWAY;
                }
            }
            () = stopped(stopping) => {
                while let Some(text) = news.next_now() {
                    if send(socket, Message::Text(text.into())).await.is_err() {
                        break;
                    }
                }
                return close_code::RESTART;
            }
        }
    }
}

async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the switchboard is gone, which is the same.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Deal with what the socket brought. An error is the code to close with.
async fn take(
    socket: &mut WebSocket,
    session: &mut Session,
    message: Option<Result<Message, axum::Error>>,
) -> Result<(), u16> {
    match message {
        Some(Ok(Message::Text(text))) => {
            if let Some(answer) = session.answer(text.as_bytes()).await {
                send(socket, Message::Text(answer.into())).await?;
            }
            if session.is_abusive() { Err(close_code::POLICY) } else { Ok(()) }
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
        Some(Ok(Message::Binary(_))) => Err(close_code::UNSUPPORTED),
        Some(Ok(Message::Close(_))) | None => Err(close_code::NORMAL),
        Some(Err(_)) => Err(close_code::PROTOCOL),
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), u16> {
    match timeout(SEND_MAX, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(close_code::AWAY),
    }
}
