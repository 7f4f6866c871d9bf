//! The plan of a network: the members, their settings, and the order of their start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::genkan::{Genkan, GenkanOptions, Replicas, Role, Services};
use super::hosts::{self, Host};
use super::member::{Member, Ready, Spec};
use super::state::{Key, State};
use super::{
    BALANCER, DOOR, GENKAN, Members, Network, Options, REPLICAS, STAND_ALONE, STAND_ALONE_DOMAIN, balancer,
    control,
};
use crate::provision::node::Node;
use crate::workspace;

/// The name of the OAuth app's web server. Client identifiers may not be of the kind that only
/// exists locally.
const APP_NAME: &str = "app.example.com";
/// The name of the second Genkan.
const DOOR_NAME: &str = "door.genkan.network";

/// A network being put together.
pub(super) struct Plan {
    state: State,
    node: Node,
    data: PathBuf,
    members: Vec<Member>,
    door: Option<Genkan>,
    replicas: Vec<Genkan>,
}

impl Plan {
    pub(super) fn load(node: Node, data: PathBuf, first_port: Option<u16>) -> Result<Self> {
        Ok(Self {
            state: State::load(&data, first_port)?,
            node,
            data,
            members: Vec::new(),
            door: None,
            replicas: Vec::new(),
        })
    }

    pub(super) fn boot(&mut self, options: &Options, temporary: bool) -> Result<Network> {
        if options.hosts > hosts::NAMES.len() {
            bail!("at most {} hosts have names", hosts::NAMES.len());
        }
        let entryway_port = self.state.port(GENKAN)?;
        let directory_port = self.state.port("plc")?;
        let directory_url = format!("http://localhost:{directory_port}");
        let entryway_url = match (&options.genkan, &options.entryway.url) {
            (None, Some(url)) => url.clone(),
            _ => format!("http://localhost:{entryway_port}"),
        };
        let names = hosts::NAMES.iter().take(options.hosts);
        let hosts = names
            .map(|name| Host::plan(&mut self.state, name, options.dev_mode))
            .collect::<Result<Vec<_>>>()?;
        let alone = Host::plan(&mut self.state, STAND_ALONE, true)?;
        let door_url = format!("https://{DOOR_NAME}:{}", self.state.port("door tls")?);

        let name_server = self.spawn_common(&directory_url, directory_port, &entryway_url, &alone)?;
        // The stand-alone PDS fetches the metadata of apps over TLS. So it needs the certificate
        // authority that the app's server makes.
        self.wait()?;
        self.spawn_alone(&alone, &directory_url, &name_server, options.external_token_age)?;
        let (genkan, keys) = match options.genkan.clone() {
            Some(wanted) => {
                // Genkan reaches these members while it starts.
                self.wait()?;
                let (appview_url, app_url) = (self.said("appview", "url"), self.said("app", "url"));
                let authority = self.said("app", "authorityFile");
                let mut origins: Vec<String> =
                    hosts.iter().chain([&alone]).map(|host| host.url.clone()).collect();
                origins.extend([directory_url.clone(), appview_url, app_url]);
                origins.extend(wanted.private_origins.iter().cloned());
                let services = Services {
                    directory_url: &directory_url,
                    name_server: &name_server,
                    private_origins: &origins,
                    mail_url: &self.said("mail", "smtp"),
                    authority_file: &authority,
                };
                let genkan = match wanted.replicas.clone() {
                    None => {
                        let role = Role { name: GENKAN, public_url: None, handle_domain: ".test" };
                        Genkan::plan(&mut self.state, &self.data, role, wanted.clone(), &services)?
                    }
                    Some(replicas) => self.plan_replicas(&replicas, &wanted, &services)?,
                };
                self.spawn_hosts_behind_genkan(&genkan, &hosts, &name_server)?;
                if options.door {
                    let role = Role { name: DOOR, public_url: Some(&door_url), handle_domain: ".door.test" };
                    let wanted = GenkanOptions { database_url: None, ..wanted };
                    let door = Genkan::plan(&mut self.state, &self.data, role, wanted, &services)?;
                    self.members.push(Member::new(DOOR, door.spec(&self.logs())));
                    self.members.last_mut().context("it was just put there")?.start()?;
                    self.door = Some(door);
                }
                if options.example {
                    let port = self.state.port("example")?;
                    self.spawn("example", "example/app.mjs", json!({ "port": port, "genkan": genkan.url }))?;
                }
                (Some(genkan), Value::Null)
            }
            None => (
                None,
                self.spawn_hosts_behind_another(
                    options,
                    &entryway_url,
                    &hosts,
                    &directory_url,
                    &name_server,
                )?,
            ),
        };
        self.wait()?;

        let map = self.map(&hosts, &alone, genkan.as_ref(), keys);
        let members = std::mem::take(&mut self.members);
        let by_name =
            members.into_iter().map(|member| (member.name().to_owned(), Mutex::new(member))).collect();
        let members = Arc::new(Members(by_name));
        let replicas = std::mem::take(&mut self.replicas);
        let data = self.data.clone();
        let mut network = Network { members, map, genkan, replicas, hosts, data, temporary };
        let control = control::serve(&network, self.state.port("control")?)?;
        if let Some(map) = network.map.as_object_mut() {
            map.insert("control".to_owned(), json!({ "url": control }));
        }
        Ok(network)
    }

    /// Starts the directory, the mail catcher, the name server, an OAuth app's web server and the
    /// app view's stand-in. Returns the name server's address.
    fn spawn_common(
        &mut self,
        directory_url: &str,
        directory_port: u16,
        entryway_url: &str,
        alone: &Host,
    ) -> Result<String> {
        let file = self.data.join("plc.jsonl");
        self.spawn("plc", "plc.mjs", json!({ "port": directory_port, "file": file }))?;
        let (smtp_port, mail_port) = (self.state.port("smtp")?, self.state.port("mail")?);
        self.spawn("mail", "mail.mjs", json!({ "smtpPort": smtp_port, "port": mail_port }))?;
        let (dns_port, names_port) = (self.state.port("dns")?, self.state.port("dns settings")?);
        let zones = json!([
            { "suffix": ".test", "origin": entryway_url },
            { "suffix": STAND_ALONE_DOMAIN, "origin": alone.url },
        ]);
        let here = json!({ "a": ["127.0.0.1"] });
        let records = json!({ APP_NAME: here, DOOR_NAME: here });
        self.spawn(
            "dns",
            "dns.mjs",
            json!({ "dnsPort": dns_port, "port": names_port, "zones": zones, "records": records }),
        )?;
        let (app_port, documents_port) = (self.state.port("app")?, self.state.port("app settings")?);
        let folder = self.data.join("app");
        let door =
            json!({ "name": DOOR_NAME, "port": self.state.port("door tls")?, "to": self.state.port(DOOR)? });
        self.spawn(
            "app",
            "app.mjs",
            json!({
                "port": app_port, "settingsPort": documents_port, "name": APP_NAME, "folder": folder, "doors": [door],
            }),
        )?;
        let name_server = format!("127.0.0.1:{dns_port}");
        let appview_port = self.state.port("appview")?;
        self.spawn(
            "appview",
            "appview.mjs",
            json!({ "port": appview_port, "directory": directory_url, "nameServer": name_server }),
        )?;
        Ok(name_server)
    }

    fn spawn_alone(
        &mut self,
        alone: &Host,
        directory_url: &str,
        name_server: &str,
        token_age: Option<Duration>,
    ) -> Result<()> {
        let mut settings = alone.settings(&mut self.state, &self.data)?;
        settings.extend(token_age.map(|age| ("TRIAL_TOKEN_AGE".to_owned(), age.as_millis().to_string())));
        let smtp_port = self.state.port("smtp")?;
        settings.insert("PDS_DID_PLC_URL".to_owned(), directory_url.to_owned());
        settings.insert("PDS_SERVICE_HANDLE_DOMAINS".to_owned(), STAND_ALONE_DOMAIN.to_owned());
        settings.insert("PDS_ENABLE_DID_DOC_WITH_SESSION".to_owned(), "true".to_owned());
        settings.insert("PDS_EMAIL_SMTP_URL".to_owned(), format!("smtp://localhost:{smtp_port}"));
        settings.insert("PDS_EMAIL_FROM_ADDRESS".to_owned(), "post@alone.test".to_owned());
        self.spawn(STAND_ALONE, "pds.mjs", json!({ "env": settings, "nameServer": name_server }))
    }

    fn spawn_hosts_behind_genkan(
        &mut self,
        genkan: &Genkan,
        hosts: &[Host],
        name_server: &str,
    ) -> Result<()> {
        let one = std::slice::from_ref(genkan);
        let processes = if self.replicas.is_empty() { one } else { &self.replicas };
        for process in processes {
            let mut member = Member::new(process.name(), process.spec(&self.logs()));
            member.start()?;
            self.members.push(member);
        }
        let known = genkan.host_names()?;
        for host in hosts {
            let mut settings = host.settings(&mut self.state, &self.data)?;
            settings.extend(genkan.settings_for(host)?);
            self.spawn(&host.name, "pds.mjs", json!({ "env": settings, "nameServer": name_server }))?;
        }
        self.wait()?;
        for host in hosts.iter().filter(|host| !known.contains(&host.name)) {
            genkan.add(host)?;
        }
        Ok(())
    }

    /// Starts the hosts for an entryway that is not part of this network, and returns the keys that
    /// it needs.
    fn spawn_hosts_behind_another(
        &mut self,
        options: &Options,
        entryway_url: &str,
        hosts: &[Host],
        directory_url: &str,
        name_server: &str,
    ) -> Result<Value> {
        let did = options.entryway.did.clone().unwrap_or_else(|| {
            let authority = entryway_url.split("//").nth(1).unwrap_or(entryway_url);
            format!("did:web:{}", authority.replace(':', "%3A"))
        });
        let names: Vec<String> = hosts.iter().map(|host| format!("{} signing", host.name)).collect();
        let signing_keys = self.state.keys(&self.node, &names)?;
        let rotation_key = self
            .state
            .keys(&self.node, &["rotation".to_owned()])?
            .into_iter()
            .next()
            .context("a key was made")?;
        for (host, key) in hosts.iter().zip(&signing_keys) {
            let mut settings = host.settings(&mut self.state, &self.data)?;
            let plc_url = options.entryway.directory_url.as_deref().unwrap_or(directory_url);
            settings.extend(
                [
                    ("PDS_ENTRYWAY_URL", entryway_url),
                    ("PDS_ENTRYWAY_DID", &did),
                    ("PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX", &key.public_key_hex),
                    ("PDS_ENTRYWAY_PLC_ROTATION_KEY", &rotation_key.did),
                    ("PDS_SERVICE_HANDLE_DOMAINS", ".test"),
                    ("PDS_DID_PLC_URL", plc_url),
                    ("PDS_DPOP_SECRET", &self.state.secret("dpop")?),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
            self.spawn(&host.name, "pds.mjs", json!({ "env": settings, "nameServer": name_server }))?;
        }
        let by_host: BTreeMap<&String, &Key> =
            hosts.iter().map(|host| &host.name).zip(&signing_keys).collect();
        let dpop_secret = self.state.secret("dpop")?;
        Ok(
            json!({ "url": entryway_url, "did": did, "signingKeys": by_host, "rotationKey": rotation_key, "dpopSecret": dpop_secret }),
        )
    }

    /// Plans the processes of one Genkan, and starts the balancer in front of them. Returns the first
    /// of them, whose public URLs are those of the balancer.
    fn plan_replicas(
        &mut self,
        replicas: &Replicas,
        wanted: &GenkanOptions,
        services: &Services<'_>,
    ) -> Result<Genkan> {
        let ports = balancer::Ports {
            service: self.state.port(GENKAN)?,
            front: self.state.port(&format!("{GENKAN} directory front"))?,
            monitor: self.state.port("balancer monitor")?,
        };
        let url = format!("http://localhost:{}", ports.service);
        let admin_password = self.state.secret(&format!("{GENKAN} admin password"))?;
        let shared = [
            ("GENKAN_DIRECTORY_FRONT_URL", format!("http://localhost:{}", ports.front)),
            ("GENKAN_ADMIN_PASSWORD", admin_password.clone()),
            ("GENKAN_SEALING_KEY", self.state.secret("sealing key")?),
            ("GENKAN_TRUSTED_PROXIES", balancer::ADDRESS.to_owned()),
        ];
        let shared = shared.map(|(name, value)| (name.to_owned(), value));
        for name in REPLICAS.into_iter().take(replicas.count) {
            let role = Role { name, public_url: Some(&url), handle_domain: ".test" };
            let settings = shared.iter().chain(&wanted.settings).cloned().collect();
            let options = GenkanOptions { settings, ..wanted.clone() };
            self.replicas.push(Genkan::plan(&mut self.state, &self.data, role, options, services)?);
        }
        let spec = balancer::spec(&replicas.balancer, ports, &self.replicas, &self.data, &self.logs())?;
        let mut member = Member::new(BALANCER, spec);
        member.start()?;
        self.members.push(member);
        let mut first = self.replicas.first().context("there is at least one replica")?.clone();
        first.directory_front_url = format!("http://localhost:{}", ports.front);
        first.admin_password = admin_password;
        Ok(first)
    }

    fn spawn(&mut self, name: &str, script: &str, configuration: Value) -> Result<()> {
        let log = self.logs().join(format!("{name}.log"));
        let arguments = vec![script.to_owned()];
        let compiled = workspace::cache()?.join("node-compile-cache");
        let authority = self.said("app", "authorityFile");
        let program = self.node.binary.clone();
        let spec = Spec {
            program,
            arguments,
            // Node keeps compiled JavaScript there, which makes the next start of a host faster.
            environment: vec![
                ("NODE_COMPILE_CACHE".to_owned(), compiled.to_string_lossy().into_owned()),
                ("NODE_EXTRA_CA_CERTS".to_owned(), authority),
            ],
            configuration: Some(configuration),
            ready: Ready::Line,
            log,
        };
        let mut member = Member::new(name, spec);
        member.spawn()?;
        self.members.push(member);
        Ok(())
    }

    /// Waits until every member that was spawned is ready.
    fn wait(&mut self) -> Result<()> {
        for member in &mut self.members {
            if member.said().is_null() {
                member.wait_until_ready()?;
            }
        }
        Ok(())
    }

    fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    fn said(&self, member: &str, what: &str) -> String {
        let said =
            self.members.iter().find(|found| found.name() == member).and_then(|found| found.said().get(what));
        said.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn map(&self, hosts: &[Host], alone: &Host, genkan: Option<&Genkan>, entryway: Value) -> Value {
        let said = |name: &str| {
            self.members.iter().find(|member| member.name() == name).map(|member| member.said().clone())
        };
        let mut map = json!({
            "plc": said("plc"),
            "hosts": hosts,
            "alone": alone,
            "mail": said("mail"),
            "dns": said("dns"),
            "appview": said("appview"),
            "app": said("app"),
            "node": self.node.binary,
            "data": self.data,
            "logs": self.logs(),
        });
        if let Some(alone) = map.get_mut("alone").and_then(Value::as_object_mut) {
            alone.insert("handleDomain".to_owned(), STAND_ALONE_DOMAIN.into());
        }
        let (name, description) = match genkan {
            None => ("entryway", entryway),
            Some(genkan) => (GENKAN, describe(genkan, ".test")),
        };
        if let Some(map) = map.as_object_mut() {
            map.insert(name.to_owned(), description);
            if let Some(door) = &self.door {
                map.insert(DOOR.to_owned(), describe(door, ".door.test"));
            }
            if let Some(example) = said("example") {
                map.insert("example".to_owned(), example);
            }
        }
        map
    }
}

/// Describes a Genkan in the map.
fn describe(genkan: &Genkan, handle_domain: &str) -> Value {
    let settings: BTreeMap<&String, &String> =
        genkan.settings.iter().map(|(name, value)| (name, value)).collect();
    json!({
        "url": genkan.url,
        "did": genkan.did,
        "operationsUrl": genkan.operations_url,
        "directoryFrontUrl": genkan.directory_front_url,
        "adminPassword": genkan.admin_password,
        "handleDomain": handle_domain,
        "binary": genkan.binary,
        "settings": settings,
    })
}
