#![no_main]
use genkan_protocol::plc::Operation;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Ok(operation) = serde_json::from_slice::<Operation>(json) {
        let again: Operation = serde_json::from_slice(&serde_json::to_vec(&operation).unwrap()).unwrap();
        assert_eq!((again.cid(), again.data()), (operation.cid(), operation.data()));
    }
});
