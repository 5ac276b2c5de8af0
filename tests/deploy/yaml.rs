//! Compose and Kubernetes: read by what knows their schemas, then held to what they promise.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::{from_pypi, read, repository, succeeds};

/// All documents of a YAML file, as JSON.
fn documents(path: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let said = succeeds(from_pypi("python").args(["-c", script]).arg(repository(path)));
    serde_json::from_str(&said).unwrap()
}

/// A Compose file, read strictly by the specification.
fn compose(path: &str) -> Value {
    let script = "import sys, compose_spec as c; s = c.PyCompose.from_yaml(open(sys.argv[1]).read()); \
                  s.validate(); print(s.to_json())";
    let said = succeeds(from_pypi("python").args(["-c", script]).arg(repository(path)));
    serde_json::from_str(&said).unwrap()
}

fn words(value: &Value) -> Vec<String> {
    let name = |value: &Value| value.as_str().unwrap().to_owned();
    match value {
        Value::Array(values) => values.iter().map(name).collect(),
        Value::Object(map) => map.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

fn the_application_is_behind_the_gateway(name: &str) {
    let file = compose(&format!("deploy/compose/{name}/compose.yaml"));
    let services = file["services"].as_object().unwrap();
    let gateway = &services["gateway"];
    assert_eq!(services.len(), 2, "the gateway and the application");
    let application = &services[name];
    assert!(application["ports"].is_null() && application["network_mode"].is_null(), "{name} is open to all");
    assert_ne!(application["network_mode"], "host");

    // They meet in a network that has no way out; the gateway alone is in the one that is published.
    let inside: BTreeSet<String> = words(&gateway["networks"]).into_iter().collect();
    let shared: Vec<String> =
        words(&application["networks"]).into_iter().filter(|network| inside.contains(network)).collect();
    assert_eq!(shared, ["inside"]);
    assert_eq!(file["networks"]["inside"]["internal"], true);

    assert_eq!(gateway["read_only"], true);
    assert_eq!(words(&gateway["cap_drop"]), ["ALL"]);
    assert!(words(&gateway["security_opt"]).iter().any(|option| option.starts_with("no-new-privileges")));
    let volumes = gateway["volumes"].to_string();
    assert!(volumes.contains("/var/lib/portcullis"), "blocks would be lost with the container: {volumes}");
    assert!(!file["volumes"]["gateway-state"].is_null());

    // The config beside it is sound, and names the application as it is reached there.
    let config = repository(&format!("deploy/compose/{name}/gateway/portcullis.toml"));
    let loaded = portcullis::config::load(&config).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.settings.sites.len(), 1);
    let address = application["networks"]["inside"]["ipv4_address"].as_str().unwrap();
    let text = fs::read_to_string(config).unwrap();
    assert!(text.contains(&format!("upstream = \"http://{address}:")), "{text}");
}

#[test]
fn keepstack_is_reachable_through_the_gateway_only() {
    the_application_is_behind_the_gateway("keepstack");
}

#[test]
fn arkeep_is_reachable_through_the_gateway_only() {
    the_application_is_behind_the_gateway("arkeep");
    let agents = &documents("deploy/compose/arkeep/compose.agents.yaml")[0];
    assert_eq!(words(&agents["services"]["arkeep"]["ports"]), ["9090:9090"], "and not its web port");
}

#[test]
fn secrets_of_compose_have_no_value_that_somebody_could_leave_as_it_is() {
    for name in ["keepstack", "arkeep"] {
        for line in read(&format!("deploy/compose/{name}/env.example")).lines() {
            let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
                continue;
            };
            assert!(value.is_empty() || key.ends_with("DOMAIN"), "{name}: {line}");
            let file = read(&format!("deploy/compose/{name}/compose.yaml"));
            assert!(file.contains(&format!("${{{key}:?")), "{name} would start without {key}");
        }
    }
}

const KUBERNETES: [&str; 3] = ["statefulset.yaml", "service.yaml", "networkpolicy.yaml"];

/// The one document of this kind and name.
fn resource(kind: &str, name: &str) -> Value {
    let all = KUBERNETES.iter().flat_map(|file| documents(&format!("deploy/kubernetes/{file}")));
    let mut found = all.filter(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn the_manifests_follow_the_schemas_of_kubernetes() {
    let files = KUBERNETES.map(|file| repository(&format!("deploy/kubernetes/{file}")));
    succeeds(from_pypi("kubernetes-validate").arg("--strict").args(files));
    let kustomization = &documents("deploy/kubernetes/kustomization.yaml")[0];
    assert_eq!(words(&kustomization["resources"]), KUBERNETES);
    // A name with a hash would restart the gateway on each change, instead of a reload.
    assert_eq!(kustomization["generatorOptions"]["disableNameSuffixHash"], true);
}

#[test]
fn the_pod_has_no_privilege_and_its_parts_fit_each_other() {
    let set = resource("StatefulSet", "portcullis");
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(words(&security["capabilities"]["drop"]), ["ALL"]);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(set["spec"]["replicas"], 1, "blocks and limits belong to one gateway");
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > 30, "longer than a drain");
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        assert_eq!(container[probe]["exec"]["command"][0], "/usr/bin/portcullis", "{probe}");
    }

    // State on a claim, the config as a whole directory: a `subPath` is never updated.
    let mounts = container["volumeMounts"].as_array().unwrap();
    let mount = |name: &str| mounts.iter().find(|mount| mount["name"] == name).unwrap();
    assert_eq!(mount("state")["mountPath"], "/var/lib/portcullis");
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "state");
    assert_eq!(mount("config")["mountPath"], "/etc/portcullis");
    assert!(mounts.iter().all(|mount| mount["subPath"].is_null()));

    // The config, but for the certificate, is sound, and every port of it is one of the container.
    let text = read("deploy/kubernetes/portcullis.toml");
    let own =
        text.lines().map(|line| if line.starts_with("certificates") { "self_signed = true" } else { line });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    fs::write(&path, own.collect::<Vec<_>>().join("\n")).unwrap();
    let settings = portcullis::config::load(&path).unwrap_or_else(|problems| panic!("{problems}")).settings;
    let listen = settings.listen;
    let wanted = [listen.https[0].port(), listen.http[0].port(), settings.admin.metrics.unwrap().port()];
    let ports = container["ports"].as_array().unwrap();
    let ports: Vec<u64> = ports.iter().map(|port| port["containerPort"].as_u64().unwrap()).collect();
    assert_eq!(ports, wanted.map(u64::from));
    assert!(settings.state_dir.starts_with("/var/lib/portcullis"));
}

#[test]
fn the_network_policies_leave_one_way_to_the_application() {
    let application = resource("NetworkPolicy", "keepstack-only-through-portcullis");
    let ingress = application["spec"]["ingress"].as_array().unwrap();
    assert_eq!(ingress.len(), 1);
    let from = ingress[0]["from"].as_array().unwrap();
    assert_eq!(from.len(), 1);
    let labels = &resource("StatefulSet", "portcullis")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&from[0]["podSelector"]["matchLabels"], labels);

    let gateway = resource("NetworkPolicy", "portcullis");
    assert_eq!(&gateway["spec"]["podSelector"]["matchLabels"], labels);
    let open: Vec<&Value> =
        gateway["spec"]["ingress"].as_array().unwrap().iter().filter(|rule| rule["from"].is_null()).collect();
    assert_eq!(open.len(), 1);
    assert!(!open[0]["ports"].to_string().contains("9180"), "metrics are open to everybody");
    let service = resource("Service", "portcullis");
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Local", "client addresses would be lost");
}

#[test]
fn the_acquisition_of_crowdsec_reads_the_log_that_fail2ban_and_logrotate_name() {
    let acquisition = &documents("deploy/crowdsec/acquis.yaml")[0];
    let file = acquisition["filenames"][0].as_str().unwrap();
    assert_eq!(acquisition["labels"]["type"], "nginx");
    for other in ["deploy/fail2ban/jail.conf", "deploy/logrotate/portcullis"] {
        assert!(read(other).contains(file), "{other}");
    }
}
