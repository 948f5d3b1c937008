//! Services without instances: `instances = 0`, `scale NAME 0`.

use std::net::TcpStream;

use keepalive::model::Signal;
use serde_json::json;

use crate::control::begin;
use crate::harness::in_every_place;
use crate::port::ReservedPort;
use crate::services::Set;

/// "0 is allowed: off". Its sockets stay open, as those of a stopped service, and nothing waits for it.
#[test]
fn a_service_without_instances_is_shown_and_can_be_turned_on() {
    let port = ReservedPort::any();
    let set = Set::new(&format!(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\ninstances = \"${{WEB:-0}}\"\nlisten = {{ http = \"tcp://{}\" }}\nfd_store = 1\n\
         state = {{ size = \"4KiB\" }}\n\
         [services.api]\ncommand = [\"PUPPET\", \"ignore\"]\ndepends_on = [\"web\"]\n",
        port.loopback()
    ));
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        control.wait_for("api.0", "running");
        let web = control.get("/v1/status").json()["services"][0].clone();
        let expected = json!({"name": "web", "type": "service", "state": "stopped", "ready": true, "desired": 0,
            "reason": "no instances", "instances": []});
        assert_eq!(web, expected);
        assert_eq!((control.get("/readyz").status, control.get("/readyz?service=web").status), (200, 200));
        drop(TcpStream::connect(port.loopback()).expect("a socket that listens"));
        let start = control.post("/v1/services/web/start");
        assert_eq!(
            (start.status, start.reason().as_str()),
            (409, "web has no instances: `keepalive scale web 1` starts one")
        );
        assert_eq!(control.post("/v1/services/web/stop").status, 200);
        let described = control.get("/v1/services/web").json()["services"][0]["text"].as_str().unwrap().to_owned();
        assert!(described.contains("  instances  0: it is off, and nothing waits for it\n"), "{described}");
        assert_eq!(control.get("/v1/services/web.0").reason(), "there is no instance web.0: web has no instances");
        assert_eq!(control.post("/v1/services/web/scale?instances=%2B2").reason(), "web has 2 instances");
        assert_eq!(control.state("web.1"), "running");
        let off = control.post("/v1/services/web/scale?instances=0");
        assert_eq!((off.status, off.reason().as_str()), (200, "web has 0 instances"));
        drop(TcpStream::connect(port.loopback()).expect("a socket that listens"));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}
