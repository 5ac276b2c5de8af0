//! The control thread as a person at the command line meets it.

use super::*;

/// Runs the control thread with its socket while `with` plays the person at the CLI.
fn served<T>(bench: &Bench, with: impl FnOnce(&cli::client::Gateway) -> T) -> T {
    let gateway = bench.gateway();
    let mut control = bench.control();
    let (bound, is_bound) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let socket = gateway.socket.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = Socket::bind(&socket).unwrap();
            let (commands, queue) = mpsc::channel(QUEUE);
            let (_changed, changed) = mpsc::channel(1);
            let explain: crate::admin::socket::Explain =
                Arc::new(|question| Box::pin(async { Ok(question) }));
            let prober: crate::admin::probe::Prober =
                Arc::new(|_| Box::pin(async { Ok(Probed { schema: 1, probes: Vec::new() }) }));
            bound.send(()).unwrap();
            tokio::select! {
                () = socket.serve(commands, explain, prober) => {}
                _ = control.run(queue, changed) => {}
                _ = stopped => {}
            }
        });
    });
    is_bound.recv().unwrap();
    let result = with(&gateway);
    drop(stop);
    thread.join().unwrap();
    result
}

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    block: cli::block::BlockArgs,
}

fn block(gateway: &cli::client::Gateway, line: &str) -> (u8, String, String) {
    use clap::Parser;
    let args = Line::try_parse_from(std::iter::once("block").chain(line.split(' '))).unwrap().block;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::block::run(&args, gateway, &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn the_command_line_blocks_lists_lifts_and_reloads() {
    let bench = Bench::new();
    served(&bench, |gateway| {
        let (code, out, _) = block(gateway, "address 192.0.2.7 --for 15m --reason why");
        assert_eq!(code, 0);
        assert!(out.starts_with("BLOCKED: address 192.0.2.7/32\n  number  1 "), "{out}");
        assert!(out.contains("until   2023-11-14T22:28:20Z"), "{out}");
        let (code, _, err) = block(gateway, "address 10.0.0.0/8");
        assert_eq!(code, 5);
        assert!(err.contains("--yes"), "{err}");
        let (code, _, err) = block(gateway, "token eyJ.a.b");
        assert_eq!(code, 2);
        assert!(err.contains("must not be an argument") && !err.contains("eyJ"), "{err}");
        let (code, out, _) = block(gateway, "subject 7 --json");
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &json["schema"], &json["block"]["id"]), (0, &1.into(), &2.into()));

        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = cli::blocks::BlocksArgs { all: false, json: true };
        assert_eq!(cli::blocks::list(&args, gateway, &mut out, &mut err), 0);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["blocks"].as_array().unwrap().len(), 2);
        assert_eq!(json["blocks"][0]["reason"], "why");

        let args = cli::blocks::UnblockArgs { id: 1, json: false };
        assert_eq!(cli::blocks::unblock(&args, gateway, &mut out, &mut err), 0);
        assert_eq!(cli::blocks::unblock(&args, gateway, &mut out, &mut err), 1);

        let reload = cli::reload::ReloadArgs { json: false };
        assert_eq!(cli::reload::run(&reload, gateway, &mut out, &mut err), 0);
        bench.fake.broken.store(true, Ordering::Relaxed);
        assert_eq!(cli::reload::run(&reload, gateway, &mut out, &mut err), 3);
        let mut out = Vec::new();
        let status = cli::status::StatusArgs { json: false };
        assert_eq!(cli::status::run(&status, gateway, &mut out, &mut err), 0);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("1 subject") && out.contains("was refused"), "{out}");
    });
    let audit = std::fs::read_to_string(bench.folder.path().join("state/audit.log")).unwrap();
    let actions: Vec<_> = audit
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions, ["block", "block", "unblock", "reload", "reload"]);
}

#[test]
fn with_the_gateway_down_an_order_waits_on_the_disk_and_holds_from_the_next_start() {
    let bench = Bench::new();
    drop(bench.control());
    let gateway = bench.gateway();
    let (code, _, err) = block(&gateway, "address 192.0.2.7");
    assert_eq!(code, 4);
    assert!(err.contains("NOT CONFIRMED") && err.contains("next start"), "{err}");
    assert_eq!(block(&gateway, "everyone").0, 5, "a wide one is not even left");
    assert_eq!(block(&gateway, "everyone --yes").0, 4);
    assert_eq!(bench.control().list(false).blocks.len(), 2);
    let args = cli::status::StatusArgs { json: false };
    assert_eq!(cli::status::run(&args, &gateway, &mut Vec::new(), &mut Vec::new()), 4);
}

#[test]
fn a_stale_socket_is_taken_over_and_a_live_one_is_not() {
    let bench = Bench::new();
    let path = bench.gateway().socket;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    served(&bench, |_| {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        runtime().block_on(async { assert!(Socket::bind(&path).is_err()) });
    });
    assert!(!path.exists());
}
