//! The container image, as far as it can be tried without a container engine.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::gate::free_addresses;
use crate::common::upstream::{OK, Upstream};
use crate::common::{HOST, raw, wait_until};
use crate::{from_pypi, read, repository, succeeds};

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");
/// The user of the image, by the Dockerfile.
const USER: u32 = 65532;

#[test]
fn the_dockerfile_is_sound_and_what_it_promises_is_in_it() {
    succeeds(
        from_pypi("hadolint").arg("--failure-threshold=style").arg(repository("deploy/docker/Dockerfile")),
    );
    let file = read("deploy/docker/Dockerfile");
    let (_, last) = file.split_once("\nFROM scratch\n").expect("the last stage begins with nothing");
    assert!(last.contains(&format!("\nUSER {USER}:{USER}\n")));
    assert!(last.contains("CMD [\"/usr/bin/portcullis\", \"healthcheck\"]"));
    assert!(!last.contains("RUN"), "there is no shell");
}

/// A gateway whose whole file system is that of the image.
struct Contained {
    root: tempfile::TempDir,
    child: Option<Child>,
}

impl Contained {
    fn lay_out(https: SocketAddr, upstream: SocketAddr) -> Self {
        let root = tempfile::tempdir().unwrap();
        let own = tempfile::tempdir().unwrap();
        let script = repository("deploy/docker/rootfs");
        succeeds(Command::new(script).arg(PROGRAM).arg(root.path()).arg(own.path()));
        // As `COPY` of the two does.
        succeeds(Command::new("cp").arg("-a").arg(own.path().join(".")).arg(root.path()));
        if is_root() {
            for place in ["run/portcullis", "var/lib/portcullis"] {
                std::os::unix::fs::chown(root.path().join(place), Some(USER), Some(USER)).unwrap();
            }
        }
        let config = format!(
            "[listen]\nhttps = [\"{https}\"]\nhttp = []\n[tls]\nself_signed = true\n[admin]\nmetrics = \"off\"\n\
             [[site]]\nhosts = [\"{HOST}\"]\napp = \"keepstack\"\nupstream = \"http://application:{}\"\n",
            upstream.port()
        );
        fs::write(root.path().join("etc/portcullis/portcullis.toml"), config).unwrap();
        // As the container runtime does.
        fs::write(root.path().join("etc/hosts"), "127.0.0.1 application\n").unwrap();
        open_to_all(root.path());
        Self { root, child: None }
    }

    /// The image's program, seeing only the image.
    fn program(&self) -> Command {
        let mut command = Command::new(if is_root() { "chroot" } else { "unshare" });
        let root = self.root.path();
        if is_root() {
            command.arg(format!("--userspec={USER}:{USER}")).arg(root);
        } else {
            command.arg("--map-root-user").arg(format!("--root={}", root.display()));
        }
        command.arg("/usr/bin/portcullis").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn start(&mut self) {
        let errors = fs::File::create(self.root.path().join("stderr")).unwrap();
        let mut command = self.program();
        command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        self.child = Some(command.spawn().unwrap());
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The directory of a test is its owner's alone; the image's root is everybody's.
fn open_to_all(root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn the_gateway_serves_as_the_images_user_with_nothing_but_the_image_in_sight() {
    let upstream = Upstream::answering(OK);
    let [https] = free_addresses();
    let mut contained = Contained::lay_out(https, upstream.address);
    assert!(!contained.program().arg("healthcheck").output().unwrap().status.success(), "nothing runs yet");
    contained.start();
    let healthy = || contained.program().arg("healthcheck").output().unwrap().status.success();
    let errors = || fs::read_to_string(contained.root.path().join("stderr")).unwrap();
    assert!(wait_until(raw::LIMIT, healthy), "{}", errors());

    let ca = contained.root.path().join("var/lib/portcullis/ca.pem");
    let mut stream = raw::tls(https, HOST, raw::trusting(&ca, &["http/1.1"])).await.unwrap();
    let answer = raw::ask(&mut stream, format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await;
    assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]), "{}", errors());
    assert!(succeeds(contained.program().arg("status")).contains("process"));
}
