//! `seedring seed --metrics` as a process: where it says the figures are, and what stands there.

mod getting;

use getting::{Album, Run, get};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const NAME: &str = "a \"quoted\" film";

fn seed(folder: &Path, arguments: &[&str]) -> Command {
    std::fs::write(folder.join(NAME), "some bytes").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
    command.args(["seed", NAME, "--bind", "127.0.0.1", "--port", "0", "--tracker-port", "0"]);
    command.args(["--workers", "2", "--no-pin"]).args(arguments);
    command.arg("--state-dir").arg(folder.join("state")).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

fn end(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).expect("our child may be signalled");
    assert!(child.wait().expect("it ends").success());
}

/// A process that has started, what it said then, and where its figures are. The figures come out of the loop that has told
/// this, so the torrent is among them by the next event.
fn started(command: &mut Command) -> (Run, serde_json::Value, String) {
    let mut run = Run::start(command);
    let started = run.started();
    let url = started["metrics"].as_str().expect("it says where the figures are").to_owned();
    run.wait_for("status");
    (run, started, url)
}

fn assert_ends(run: Run) {
    run.signal(Signal::TERM);
    let (status, _, said) = run.ended();
    assert!(status.success(), "{said}");
}

/// The head and the body of the answer, for who reads OpenMetrics.
fn ask(url: &str, path: &str) -> (String, String) {
    ask_as(url, path, "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n")
}

/// The same for who sends these headers.
fn ask_as(url: &str, path: &str, headers: &str) -> (String, String) {
    let address = url.strip_prefix("http://").and_then(|url| url.strip_suffix("/metrics"));
    let address = address.expect("the address is printed as a link");
    let mut stream = TcpStream::connect(address).expect("it listens there");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n")
        .expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it answers");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head ends");
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn the_figures_are_served_where_the_first_event_says() {
    let folder = tempfile::tempdir().unwrap();
    let (run, started, url) = started(&mut seed(folder.path(), &["--metrics", "127.0.0.1:0", "--json"]));
    let (head, text) = ask(&url, "/metrics");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(!head.contains("access-control"), "{head}");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let info_hash = started["info_hash"].as_str().unwrap();
    for line in [
        "seedring_torrents 1",
        "seedring_failed_torrents 0",
        "seedring_trackers{state=\"fails\"} 0",
        "seedring_uploaded_bytes_total 0",
        "seedring_worker_connections{worker=\"1\"} 0",
        "seedring_worker_waited_window_seconds_total{worker=\"1\"} 0.000000000",
        "seedring_worker_request_seconds_bucket{worker=\"0\",le=\"+Inf\"} 0",
        &format!(
            "seedring_torrent_waited_seconds_total{{info_hash=\"{info_hash}\",cause=\"choke\"}} 0.000000000"
        ),
        &format!("seedring_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        &format!(
            "seedring_torrent_connections{{info_hash=\"{info_hash}\",name=\"a \\\"quoted\\\" film\"}} 0"
        ),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(ask(&url, "/").0.starts_with("http/1.1 404"));
    assert_ends(run);
}

#[test]
fn a_download_tells_how_far_it_is_and_how_fast() {
    let album = Album::new(2, 16 << 10, &[("one.flac", 3_000_000), ("two.flac", 500_000)]);
    let seed = getting::seed(&album, "300KB/s");
    let mut command = get(&album, Some(seed.address()));
    let (mut run, started, url) = started(command.args(["--metrics", "127.0.0.1:0", "--only", "one.flac"]));
    let wanted = 3_000_000_u64.next_multiple_of(16 << 10);
    let labels = format!("{{info_hash=\"{}\",name=\"album\"}}", started["info_hash"].as_str().unwrap());
    let value = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing in\n{text}")).parse().unwrap()
    };
    loop {
        let (_, text) = ask_as(&url, "/metrics", "");
        let of = |name: &str| value(&text, &format!("seedring_torrent_{name}_bytes{labels}"));
        assert_eq!((of("wanted"), of("here") + of("left")), (wanted, wanted));
        if of("here") > 0 && value(&text, "seedring_download_bytes_per_second") > 0 {
            assert!(value(&text, "seedring_downloaded_bytes_total") >= of("here"));
            assert_promtool_is_content(&text);
            break;
        }
        run.wait_for("status");
    }
}

/// Prometheus' own tool finds nothing to say of the figures.
fn assert_promtool_is_content(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tools/install-test-clients installs promtool");
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn prometheus_reads_the_figures_in_its_own_format() {
    let folder = tempfile::tempdir().unwrap();
    let (run, _, url) = started(&mut seed(folder.path(), &["--metrics", "127.0.0.1:0", "--json"]));
    for accept in ["", "Accept: text/plain;version=0.0.4\r\n", "Accept: */*\r\n"] {
        let (head, text) = ask_as(&url, "/metrics", accept);
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        for begin in
            ["process_cpu_seconds_total ", "process_open_fds ", "seedring_torrents 1", "seedring_build_info{"]
        {
            assert!(text.lines().any(|line| line.starts_with(begin)), "{begin} is missing in\n{text}");
        }
        assert_promtool_is_content(&text);
    }
    assert_ends(run);
}

#[test]
fn people_are_told_the_address_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = seed(folder.path(), &["--metrics", "127.0.0.1:0"]).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut lines = lines.map(|line| line.expect("it prints text"));
    let line = lines.find(|line| line.starts_with("metrics ")).expect("it is printed");
    let url = line.strip_prefix("metrics     ").expect("it stands in its column");
    assert!(ask(url, "/metrics").1.ends_with("# EOF\n"));
    end(child);
}

#[test]
fn a_taken_address_is_one_sentence_and_exit_code_1() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = seed(folder.path(), &["--metrics", &address]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(said.contains(&address) && said.contains("--metrics"), "{said}");
}
