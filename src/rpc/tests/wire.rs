//! Headers, byte for byte as RFC 5531 has them, and record marking.

use super::*;

/// Sends one record, and expects exactly these words back.
async fn expect(record: &[u8], reply: &[u32]) {
    let server = Server::start();
    let mut client = server.connect().await;
    client.send(record).await;
    assert_eq!(client.receive().await, Some(words(reply)));
}

#[tokio::test]
async fn null_is_answered() {
    expect(&call(7, NULL, &[]), &[7, 1, 0, 0, 0, 0]).await;
}

#[tokio::test]
async fn other_rpc_version_is_denied_with_ours() {
    expect(&record(&words(&[7, 0, 3, PROGRAM, 3, 0, 0, 0, 0, 0])), &[7, 1, 1, 0, 2, 2]).await;
}

#[tokio::test]
async fn unknown_program_is_unavailable() {
    expect(&record(&words(&[7, 0, 2, 99, 3, 0, 0, 0, 0, 0])), &[7, 1, 0, 0, 0, 1]).await;
}

#[tokio::test]
async fn other_program_version_is_told_the_range() {
    expect(&record(&words(&[7, 0, 2, PROGRAM, 4, 0, 0, 0, 0, 0])), &[7, 1, 0, 0, 0, 2, 2, 3]).await;
}

#[tokio::test]
async fn unknown_procedure_is_unavailable() {
    expect(&call(7, 77, &[]), &[7, 1, 0, 0, 0, 3]).await;
}

#[tokio::test]
async fn bad_arguments_are_garbage() {
    expect(&call(7, ECHO, &words(&[5, 0])), &[7, 1, 0, 0, 0, 4]).await;
}

#[tokio::test]
async fn a_failed_call_leaves_nothing_of_its_result() {
    expect(&call(7, SYSTEM_ERROR, &[]), &[7, 1, 0, 0, 0, 5]).await;
}

#[tokio::test]
async fn program_may_find_the_credential_too_weak() {
    expect(&call(7, TOO_WEAK, &[]), &[7, 1, 1, 1, 5]).await;
}

#[tokio::test]
async fn nobody_is_asked_for_auth_sys_where_that_is_needed() {
    expect(&call(7, WHO, &[]), &[7, 1, 1, 1, 5]).await;
}

#[tokio::test]
async fn other_flavors_are_too_weak() {
    expect(&call_as(7, ECHO, 6, b"context"), &[7, 1, 1, 1, 5]).await;
}

#[tokio::test]
async fn null_is_answered_to_anyone() {
    expect(&call_as(7, NULL, 3, b"des"), &[7, 1, 0, 0, 0, 0]).await;
    expect(&call_as(7, NULL, 1, b"none"), &[7, 1, 0, 0, 0, 0]).await;
}

/// RFC 9289 section 4.1: a server without TLS answers the question without the verifier STARTTLS, and takes AUTH_TLS for
/// nothing else.
#[tokio::test]
async fn the_question_for_tls_is_answered_with_no() {
    expect(&call_as(7, NULL, 7, b""), &[7, 1, 0, 0, 0, 0]).await;
    expect(&call_as(7, NULL, 7, b"more"), &[7, 1, 1, 1, 1]).await;
    expect(&call_as(7, ECHO, 7, b""), &[7, 1, 1, 1, 1]).await;
}

#[tokio::test]
async fn a_gss_handshake_is_no_null() {
    expect(&call_as(7, NULL, 6, b"init"), &[7, 1, 1, 1, 5]).await;
}

#[tokio::test]
async fn malformed_auth_sys_is_a_bad_credential() {
    let bad = [7, 1, 1, 1, 1];
    expect(&call_as(7, WHO, 1, &[]), &bad).await;
    expect(&call_as(7, WHO, 1, &words(&[0])), &bad).await;
    expect(&call_as(7, WHO, 1, &auth_sys(0, b"host", 1, 2, &[0; 17])), &bad).await;
    expect(&call_as(7, WHO, 1, &auth_sys(0, &[b'h'; 256], 1, 2, &[])), &bad).await;
    let whole = auth_sys(0, b"host", 1, 2, &[3, 4]);
    expect(&call_as(7, WHO, 1, &whole[..whole.len() - 4]), &bad).await;
}

#[tokio::test]
async fn credential_beyond_400_bytes_is_bad() {
    expect(&call_as(7, ECHO, 0, &[0; 404]), &[7, 1, 1, 1, 1]).await;
}

#[tokio::test]
async fn verifier_beyond_400_bytes_is_bad() {
    let mut content = words(&[7, 0, 2, PROGRAM, 3, ECHO, 0, 0, 0]);
    content.put_opaque(&[0; 404]);
    expect(&record(&content), &[7, 1, 1, 1, 3]).await;
}

#[tokio::test]
async fn each_call_has_its_own_caller() {
    let server = Server::start();
    let mut client = server.connect().await;
    let max = auth_sys(1, &[b'm'; 255], 10, 20, &[9; 16]);
    let other = auth_sys(2, b"host", 11, 21, &[]);
    let broken = auth_sys(3, b"host", 12, 22, &[0; 17]);
    for (body, who) in [(&max, [10, 20, 16]), (&other, [11, 21, 0]), (&other, [11, 21, 0]), (&max, [10, 20, 16])] {
        client.send(&call_as(1, WHO, 1, body)).await;
        assert_eq!(client.receive().await, Some(success(1, &words(&who))));
    }
    client.send(&call_as(2, WHO, 1, &broken)).await;
    assert_eq!(client.receive().await, Some(words(&[2, 1, 1, 1, 1])));
    client.send(&call_as(3, WHO, 1, &max)).await;
    assert_eq!(client.receive().await, Some(success(3, &words(&[10, 20, 16]))));
}

#[tokio::test]
async fn a_call_may_come_in_pieces_cut_anywhere() {
    let server = Server::start();
    let mut client = server.connect().await;
    let args = words(&[5, 0x6162_6364, 0x6500_0000]);
    let whole = call(7, ECHO, &args);
    for cut in 1..whole.len() {
        client.send(&whole[..cut]).await;
        tokio::task::yield_now().await;
        client.send(&whole[cut..]).await;
        assert_eq!(client.receive().await, Some(success(7, &args)), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_record_may_have_fragments_cut_anywhere() {
    let server = Server::start();
    let mut client = server.connect().await;
    let args = words(&[5, 0x6162_6364, 0x6500_0000]);
    let content = call(7, ECHO, &args)[4..].to_vec();
    for cut in 0..=content.len() {
        let mut bytes = words(&[cut as u32]);
        bytes.extend_from_slice(&content[..cut]);
        bytes.extend(record(&content[cut..]));
        client.send(&bytes).await;
        assert_eq!(client.receive().await, Some(success(7, &args)), "cut at {cut}");
    }
}

#[tokio::test]
async fn pipelined_calls_are_all_answered_in_order() {
    let server = Server::start();
    let mut client = server.connect().await;
    let calls: Vec<u8> = (0..1000).flat_map(|xid| call(xid, ECHO, &words(&[4, xid]))).collect();
    client.send(&calls).await;
    for xid in 0..1000 {
        assert_eq!(client.receive().await, Some(success(xid, &words(&[4, xid]))));
    }
}

#[tokio::test]
async fn a_largest_write_passes_and_one_more_byte_does_not() {
    let server = Server::with(Limits { max_record: 40 + 4 + (1 << 20), ..Limits::default() });
    let mut client = server.connect().await;
    for xid in [1, 2] {
        let mut args = Vec::new();
        args.put_opaque(&vec![xid as u8; 1 << 20]);
        assert_eq!(client.call(xid, ECHO, &args).await, success(xid, &args));
    }
    client.send(&words(&[(40 + 4 + (1 << 20) + 1) | 1 << 31])).await;
    client.assert_closed().await;
    server.assert_alive().await;
}

#[tokio::test]
async fn fragments_count_together_against_the_limit() {
    let server = Server::with(Limits { max_record: 1000, ..Limits::default() });
    let mut client = server.connect().await;
    let mut bytes = words(&[600]);
    bytes.extend([0; 600]);
    bytes.extend(words(&[401 | 1 << 31]));
    client.send(&bytes).await;
    client.assert_closed().await;
}

#[tokio::test]
async fn endless_empty_fragments_close() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.send(&[0; 4 * 17]).await;
    client.assert_closed().await;
}

#[tokio::test]
async fn what_is_no_call_closes() {
    let server = Server::start();
    for content in [&[][..], &[0, 0], &[7], &[7, 1, 0, 0, 0, 0], &[7, 0, 2, PROGRAM, 3]] {
        let mut client = server.connect().await;
        client.send(&record(&words(content))).await;
        client.assert_closed().await;
    }
    server.assert_alive().await;
}
