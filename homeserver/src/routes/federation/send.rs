//! `/_matrix/federation/v1/send/{txnId}`

use ruma::api::federation::transactions::send_transaction_message::v1 as send;
use services::{Services, error::Error};

use crate::routes::call::{Call, Peer, Reply};

/// `PUT`: a transaction.
pub async fn put(services: Services, call: Call<send::Request>) -> Reply<send::Response> {
    let Call { request, caller: Peer { server }, .. } = call;
    if request.origin != server {
        return Err(Error::Forbidden("the transaction names another origin".to_owned()).into());
    }
    let edus: Vec<_> = request.edus.into_iter().map(ruma::serde::Raw::into_json).collect();
    let txn_id = request.transaction_id.as_str();
    let outcomes = services.incoming.transaction(&server, txn_id, &request.pdus, &edus).await?;
    Ok(send::Response::new(outcomes))
}
