//! Files that are refused, and every line that they get.

use super::*;

/// `SMALL` with one override, and the one line it gets.
#[test]
fn bad_values_say_what_would_be_right() {
    let cases: &[(&str, &str)] = &[
        (
            "cluster.windw=1s",
            r#"unknown key "windw" in [cluster]; did you mean "window"?"#,
        ),
        (
            "networks.front.client=true",
            r#"unknown key "client" in [networks.front]; did you mean "clients"?"#,
        ),
        (
            "networks.front.clients=yes",
            "networks.front.clients: must be true or false without quotes, not a string",
        ),
        (
            "networks.front.gateway=router",
            r#"networks.front.gateway: "router" is not an IP address; write the router's address on this network, like "10.0.1.1""#,
        ),
        (
            "networks.front.gateway=224.0.0.1",
            r#"networks.front.gateway: 224.0.0.1 is no router's address; write the router's address on this network, like "10.0.1.1""#,
        ),
        (
            "networks.front.gateway=10.0.0.1",
            "c.toml:3: networks.front: gateway 10.0.0.1 is the address of node a; give the address of the network's router",
        ),
        (
            "networks.front.gateway=fd00::1",
            "c.toml:3: networks.front: gateway fd00::1 and 10.0.0.1 (nodes.a) are IPv4 and IPv6; give the router's address of the nodes' version",
        ),
        (
            "networks.front={ clients = false, gateway = \"10.0.0.9\" }",
            "networks.front: gateway is looked at on a network of clients alone; add clients = true, or take gateway out",
        ),
        (
            "networks.back={ clients = true }",
            "networks.back: clients = true, and no member has an address on it; give the members one, or take the key out",
        ),
        (
            "cluster.window=500",
            r#"cluster.window: 500 has no unit; write "500ms", "500s" or another of ms, s, m, h, d"#,
        ),
        (
            "cluster.window=0.5",
            r#"cluster.window: 0.5 has no unit; write "0.5ms", "0.5s" or another of ms, s, m, h, d"#,
        ),
        (
            "cluster.window=\"500\"",
            r#"cluster.window: 500 has no unit; write "500ms", "500s" or another of ms, s, m, h, d"#,
        ),
        (
            "cluster.window=5 parsecs",
            r#"cluster.window: "5 parsecs" is not a duration; write a number and a unit (ms, s, m, h or d), as in "250ms" or "1.5s""#,
        ),
        (
            "cluster.window=10ms",
            r#"cluster.window: 10ms is out of range; it must be from "30ms" to "10m""#,
        ),
        (
            "cluster.window=11m",
            r#"cluster.window: 11m is out of range; it must be from "30ms" to "10m""#,
        ),
        (
            "cluster.window=-1s",
            r#"cluster.window: "-1s" is not a duration; write a number and a unit (ms, s, m, h or d), as in "250ms" or "1.5s""#,
        ),
        (
            "cluster.window=[]",
            r#"cluster.window: must be a duration, not a list; write a number and a unit (ms, s, m, h or d), as in "250ms" or "1.5s""#,
        ),
        (
            "cluster.name=a_b",
            r#"cluster.name: "a_b" is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"#,
        ),
        (
            "cluster.name=5",
            "cluster.name: must be a string in quotes, not a number",
        ),
        (
            "cluster.key=file:none",
            "cluster.key: none does not exist; copy it from another node; for a new cluster make one with: baton keygen > none",
        ),
        (
            "cluster.key=file:short",
            "cluster.key: short is not a key of 32 bytes in base64 (44 characters); copy it from another node, for all need the same one (for a new cluster, `baton keygen` prints one)",
        ),
        (
            "cluster.key=file:.",
            "cluster.key: . is not a regular file; name the file that holds the secret",
        ),
        (
            "cluster.key=env:BATON_NO_SUCH_VARIABLE",
            "cluster.key: environment variable BATON_NO_SUCH_VARIABLE is not set; set it to the key of the other nodes; for a new cluster, to what `baton keygen` prints",
        ),
        (
            "cluster.key=env:PATH",
            "cluster.key: environment variable PATH is not a key of 32 bytes in base64 (44 characters); copy it from another node, for all need the same one (for a new cluster, `baton keygen` prints one)",
        ),
        (
            "cluster.key=BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            r#"cluster.key: must say where the secret is: "file:/path" or "env:NAME""#,
        ),
        (
            "cluster.on_join_timeout=die",
            r#"cluster.on_join_timeout: "die" is not valid; use one of warn, exit"#,
        ),
        (
            "cluster=5",
            "cluster: must be a table, [cluster] or { ... }, not a number",
        ),
        ("cluster", "has no '='; write it like --set cluster.window=500ms"),
        ("=5", "has no key; write it like --set cluster.window=500ms"),
        ("cluster.name.x=5", r#""name" is not a table; set it as a whole"#),
        (
            "clustr.window=1s",
            "unknown table [clustr]; did you mean [cluster]?",
        ),
        (
            "bogus=1",
            r#""bogus" stands outside of any table; tables are [cluster], [networks], [nodes], [storage], [check], [actions], [process], [roles], [agent], [http], [control], [dns]"#,
        ),
        (
            "networks={}",
            "networks: no networks; add a table [networks] with a line like: front = { port = 7400 }",
        ),
        (
            "networks.Front={}",
            r#"network "front" is there twice (case does not count); rename one"#,
        ),
        (
            "networks.node={}",
            r#"a network cannot be called "node", which has a meaning of its own; rename it"#,
        ),
        (
            "networks.a_b={}",
            r#"network "a_b" is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"#,
        ),
        (
            "networks.back=7400",
            "networks.back: must be a table, [networks.back] or { ... }, not a number",
        ),
        (
            "networks.back.port=0",
            "networks.back.port: 0 is out of range; it must be a number from 1 to 65535",
        ),
        (
            "networks.back.prt=1",
            r#"unknown key "prt" in [networks.back]; did you mean "port"?"#,
        ),
        (
            "networks.back.interface=a/b",
            r#"networks.back.interface: "a/b" is not an interface; `ip link` lists their names, like "eth1""#,
        ),
        (
            "nodes={}",
            r#"nodes: no nodes; add a table for each node, like: [nodes.a] front = "10.0.1.11""#,
        ),
        (
            "nodes.A.front=10.0.0.2",
            r#"node "a" is there twice (case does not count); rename one"#,
        ),
        (
            "nodes.b={}",
            r#"[nodes.b] has no address; add a line like: front = "10.0.1.11""#,
        ),
        (
            "nodes.b.frnt=10.0.0.2",
            r#"nodes.b.frnt: neither a network nor a key of nodes; did you mean "front"?"#,
        ),
        (
            "nodes.b.colour=red",
            "nodes.b.colour: neither a network nor a key of nodes; networks are front; keys are kind, serves, priority",
        ),
        (
            "nodes.b.front=10.0.0.1",
            "nodes.b.front: 10.0.0.1 port 7400 is already nodes.a.front; every node needs an address of its own on each network",
        ),
        (
            "nodes.b.front=fd00::2",
            "nodes.b.front: fd00::2 and 10.0.0.1 (nodes.a.front) are IPv4 and IPv6; they cannot talk to each other; make them two networks",
        ),
        (
            "nodes.b.front=10.0.0.2:7400",
            r#"nodes.b.front: "10.0.0.2:7400" has a port; write "10.0.0.2""#,
        ),
        (
            "nodes.b.front=\"[fd00::2]\"",
            r#"nodes.b.front: "[fd00::2]" is in brackets; write "fd00::2""#,
        ),
        (
            "nodes.b.front=10.0.0.256",
            r#"nodes.b.front: "10.0.0.256" is not an address or host name; write it like "10.0.1.11", "fd00::11" or "a.example.org""#,
        ),
        (
            "nodes.b.front=0.0.0.0",
            "nodes.b.front: 0.0.0.0 is not the address of one machine; write the one that others reach it by",
        ),
        (
            "nodes.b.front=fe80::1",
            r#"nodes.b.front: fe80::1 is link-local, which says nothing on another machine; write one like "fd00::11""#,
        ),
        (
            "nodes.b.front=a b",
            r#"nodes.b.front: "a b" is not an address or host name; write it like "10.0.1.11", "fd00::11" or "a.example.org""#,
        ),
        (
            "nodes.a.kind=witness",
            r#"c.toml:4: nodes: no member, so nothing could ever be active; give at least one node kind = "member""#,
        ),
        (
            "nodes.a.kind=memer",
            r#"nodes.a.kind: "memer" is not valid; use one of member, observer, witness"#,
        ),
        (
            "nodes.a.priority=high",
            "nodes.a.priority: must be a number from -1000000 to 1000000 without quotes, not a string",
        ),
        (
            "nodes.a.priority=99999999999999999999",
            "nodes.a.priority: 99999999999999999999 is out of range; it must be a number from -1000000 to 1000000",
        ),
        (
            "nodes.a.front={ bind = \"10.0.0.5\" }",
            "[nodes.a.front] lacks \"address\"; add a line like: address = \"203.0.113.5\"",
        ),
        (
            "nodes.a.front={ address = \"203.0.113.5\", bind = \"fd00::5\" }",
            "nodes.a.front.bind: fd00::5 and 203.0.113.5 are IPv4 and IPv6; what is sent to one does not arrive at the other",
        ),
        (
            "nodes.a.front={ address = \"203.0.113.5\", bound = \"10.0.0.5\" }",
            "unknown key \"bound\" in [nodes.a.front]; known are address, bind",
        ),
        (
            "nodes.a.serves=[]",
            "nodes.a.serves: is an empty list; give at least one string or leave the key out",
        ),
        (
            "nodes.a.serves=[\"a.b\", \"10.0.0.1\"]",
            "nodes.a.serves: give either addresses or a single host name, not both",
        ),
        (
            "storage={}",
            r#"[storage] lacks "dir"; add a line like: dir = "/var/lib/baton/{node}""#,
        ),
        (
            "storage.dir=/x/{nod}",
            r#"storage.dir: unknown placeholder {nod}; did you mean "{node}"?"#,
        ),
        (
            "storage.dir=/x/{colour}",
            "storage.dir: unknown placeholder {colour}; use one of {node}, {front}",
        ),
        (
            "storage.dir=/x/{node",
            r#"storage.dir: "/x/{node" has a { without }; write a placeholder like {node}"#,
        ),
        (
            "check.command=[\"/x\", \"{nod}\"]",
            r#"check.command: unknown placeholder {nod}; did you mean "{node}"?; for braces that stand for themselves write {{nod}}"#,
        ),
        (
            "check.http=http://{front}:${NO_SUCH_VARIABLE}/{node",
            "check.http: ${NO_SUCH_VARIABLE} is not in this program's environment, or is no text; set it there (a unit has Environment=), \
             or write $${NO_SUCH_VARIABLE} for the shell that a command runs",
        ),
        (
            "nodes.a.serves={back}",
            "nodes.a.serves: unknown placeholder {back}; use one of {node}, {front}",
        ),
        (
            "check={}",
            r#"[check] needs one of http, tcp, command, grpc or process; add a line like: http = "http://127.0.0.1:8080/ready""#,
        ),
        (
            "check={tcp=\"a:1\", http=\"http://a\"}",
            "[check] has http and tcp; keep one of them",
        ),
        (
            "check.http=https://a/",
            r#"check.http: "https://a/" does not begin with http://; for https use command = ["curl", "--fail", "--silent", "--max-time", "1", URL]"#,
        ),
        (
            "check.http=http://a:99999/",
            r#"check.http: "a:99999" is not HOST:PORT; write it like "127.0.0.1:8080" or "[::1]:8080""#,
        ),
        (
            "check.http=http://a/ b",
            r#"check.http: "/ b" is not a path; use ASCII without spaces, and percent-encode the rest"#,
        ),
        (
            "check={http=\"http://a\", status=\"20\"}",
            r#"check.status: must be 200, "200-399" or [200, 399], each from 100 to 599"#,
        ),
        (
            "check={tcp=\"a:1\", status=200}",
            "check.status: belongs to an http check; remove it",
        ),
        (
            "check={process=\"/run/x.pid\", body=\"ok\"}",
            "check.body: belongs to an http check; remove it",
        ),
        (
            "check={http=\"http://a\", service=\"x\"}",
            "check.service: belongs to a grpc check; remove it",
        ),
        (
            "check={http=\"http://a\", method=\"get\"}",
            r#"check.method: "get" is not valid; use one of GET, HEAD, POST, OPTIONS"#,
        ),
        (
            "check={http=\"http://a\", method=\"HEAD\", body=\"ok\"}",
            r#"check.body: the answer to HEAD has none; use method = "GET""#,
        ),
        (
            "check={http=\"http://a\", body=\"(ready\"}",
            r#"check.body: "(ready" is not a regular expression: found open group without closing ')'; write one like "ready|standby""#,
        ),
        (
            "check={http=\"http://a\", body=\"x{1000}{1000}\"}",
            r#"check.body: "x{1000}{1000}" is not a regular expression: compiled regex exceeded size limit; write one like "ready|standby""#,
        ),
        (
            "check={http=\"http://a\", body=\"\"}",
            "check.body: must have 1 to 1000 characters; leave the key out to accept every body",
        ),
        (
            "check={http=\"http://a\", redirects=6}",
            "check.redirects: 6 is out of range; it must be a number from 0 to 5",
        ),
        (
            "check={http=\"http://a\", headers=\"x\"}",
            r#"check.headers: must be a table of strings, not a string; write it like { Host = "orders.example.org" }"#,
        ),
        (
            "check={http=\"http://a\", headers={\"X: y\"=\"1\"}}",
            r#"check.headers: "X: y" is not the name of a header; use up to 64 letters, digits and '-'"#,
        ),
        (
            "check={http=\"http://a\", headers={X=1}}",
            "check.headers: X: must be a string in quotes, not a number",
        ),
        (
            "check={http=\"http://a\", headers={X=\"1\\r\\nEvil: 1\"}}",
            "check.headers: X: contains a line end or control character; remove it",
        ),
        (
            "check={http=\"http://a\", headers={X=\"1\", x=\"2\"}}",
            r#"check.headers: "x" is there twice (case does not count); remove one"#,
        ),
        (
            "check={http=\"http://a\", headers={Content-Length=\"5\"}}",
            r#"check.headers: "Content-Length" is set by the agent, for it says where a request ends; remove it"#,
        ),
        (
            "http={listen=\"[::]:1\", agent_weight=50}",
            "http.agent_weight: has no effect without agent_check; add that, or remove it",
        ),
        (
            "http={listen=\"[::]:1\", agent_check=\"[::]:2\", agent_weight=101}",
            "http.agent_weight: 101 is out of range; it must be a number from 1 to 100",
        ),
        (
            "http={listen=\"[::]:1\", agent_check=\"[::]:1\"}",
            "http: cannot listen on [::]:1, which is taken by http.listen; choose another port",
        ),
        (
            "http={listen=\"[::]:1\", codes={standby=100}}",
            "http.codes.standby: 100 is out of range; it must be a number from 200 to 599",
        ),
        (
            "http={listen=\"[::]:1\", codes={stanby=429}}",
            r#"unknown key "stanby" in [http.codes]; did you mean "standby"?"#,
        ),
        (
            "http={listen=\"[::]:1\", tls={cert=\"/c.pem\", key=\"file:/k.pem\"}}",
            r#"http.tls.cert: must say which file: "file:/path", as in cert = "file:/etc/baton/tls/{node}.crt""#,
        ),
        (
            "http={listen=\"[::]:1\", tls={cert=\"file:/c.pem\"}}",
            r#"[http.tls] lacks "key"; add a line like: key = "file:/etc/baton/tls/{node}.key""#,
        ),
        (
            "check.grpc=localhost",
            r#"check.grpc: "localhost" is not HOST:PORT; write it like "127.0.0.1:8080" or "[::1]:8080""#,
        ),
        (
            "check={grpc=\"a:1\", service=\"a\\nb\"}",
            r#"check.service: must be a service's name like "orders.Orders", of at most 256 bytes"#,
        ),
        (
            "check.process=orders.pid",
            r#"check.process: "orders.pid" is not the whole path of a file; write it like "/run/orders.pid""#,
        ),
        (
            "check={tcp=\"a:1\", delay=\"1m\"}",
            r#"check.delay: 1m is out of range; it must be from "0ms" to "20s""#,
        ),
        (
            "check.tcp=localhost",
            r#"check.tcp: "localhost" is not HOST:PORT; write it like "127.0.0.1:8080" or "[::1]:8080""#,
        ),
        (
            "check.tcp=::1",
            r#"check.tcp: "::1" is not HOST:PORT; write it like "127.0.0.1:8080" or "[::1]:8080""#,
        ),
        (
            "check.command=pg_isready -q",
            r#"check.command: must be a list, not a string; write program and arguments as a list, as in ["/usr/bin/pg_isready", "-q"]"#,
        ),
        (
            "check.command=[]",
            r#"check.command: names no program; write program and arguments as a list, as in ["/usr/bin/pg_isready", "-q"]"#,
        ),
        (
            "check={tcp=\"a:1\", fall=0}",
            "check.fall: 0 is out of range; it must be a number from 1 to 1000",
        ),
        (
            "check={tcp=\"a:1\", when=\"never\"}",
            r#"check.when: "never" is not valid; use one of always, active"#,
        ),
        (
            "actions.promote={}",
            r#"[actions.promote] needs one of command or post; add a line like: command = ["/usr/local/bin/start-serving"]"#,
        ),
        (
            "actions.demote={command=[\"true\"], post=\"http://a/\"}",
            "[actions.demote] has command and post; keep one of them",
        ),
        (
            "actions.notify={timeout=\"1s\"}",
            r#"[actions.notify] needs one of command or post; add a line like: command = ["/usr/local/bin/role-changed"]"#,
        ),
        (
            "process={command=[\"a\"], mode=\"warm\"}",
            r#"process: with mode = "warm" it runs on when its node steps down, and nothing tells it of that; add demote_signal, or better actions.demote, which can wait until it acts no more"#,
        ),
        (
            "process={command=[\"a\"], kill_time=\"3s\"}",
            r#"process: kill_time of 3s does not fit in the lease: with a window of 1s a node that loses touch must have stopped its application in less than half of that; set cluster.window to 10.07s, or make it at most 280ms if the killed application vanishes as quickly"#,
        ),
        (
            "process={command=[\"a\"], kill_tme=\"3s\"}",
            r#"unknown key "kill_tme" in [process]; did you mean "kill_time"?"#,
        ),
        (
            "actions.fence={timeout=\"100ms\"}",
            r#"[actions.fence] lacks "command"; add a line like: command = ["/usr/local/bin/kill-serving"]"#,
        ),
        (
            "actions.fence.post=http://127.0.0.1:8080/fence",
            r#"actions.fence.post: must be a command, for the guardian runs it when the agent cannot, and speaks no HTTP; write a line like: command = ["/usr/local/bin/kill-serving"]"#,
        ),
        (
            "actions.promote.post=https://a/",
            r#"actions.promote.post: "https://a/" does not begin with http://; for https use command = ["curl", "--fail", "--silent", "--max-time", "1", URL]"#,
        ),
        (
            "actions.promote.post=/promote",
            r#"actions.promote.post: "/promote" does not begin with http://; write it like "http://127.0.0.1:8080/ready""#,
        ),
        (
            "actions.promote={command=[\"true\"], on_failure=\"abort\"}",
            r#"actions.promote.on_failure: "abort" is not valid; use one of release, retry, stay"#,
        ),
        (
            "actions.fence={command=[\"true\"], on_failure=\"stay\"}",
            r#"actions.fence.on_failure: "stay" is not valid; use one of retry, release"#,
        ),
        (
            "actions.notify={command=[\"true\"], on_failure=\"retry\"}",
            "actions.notify.on_failure: nothing follows if it fails; remove it",
        ),
        (
            "actions.promote_again=true",
            "actions.promote_again: there is no promote that could be run again; add one, or remove this",
        ),
        (
            "actions.promote=/bin/true",
            "actions.promote: must be a table, [actions.promote] or { ... }, not a string",
        ),
        (
            "actions.promot={}",
            r#"unknown key "promot" in [actions]; did you mean "promote"?"#,
        ),
        (
            "roles={}",
            r#"roles: must name 1 to 16 roles; leave [roles] out to have the one role "main""#,
        ),
        (
            "roles.a_b={}",
            r#"role "a_b" is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"#,
        ),
        (
            "roles.x.chek={}",
            r#"unknown key "chek" in [roles.x]; did you mean "check"?"#,
        ),
        (
            "http={}",
            r#"[http] lacks "listen"; add a line like: listen = "0.0.0.0:7480""#,
        ),
        (
            "http.listen=localhost:80",
            r#"http.listen: "localhost:80" is not IP:PORT; write it like "0.0.0.0:7480" or "[::]:7480", not a host name"#,
        ),
        (
            "http.listen=0.0.0.0:0",
            r#"http.listen: "0.0.0.0:0" has port 0, which is none; write it like "0.0.0.0:7480" or "[::]:7480""#,
        ),
        (
            "control.listen=127.0.0.1:0",
            r#"control.listen: "127.0.0.1:0" has port 0, which is none; write it like "0.0.0.0:7480" or "[::]:7480""#,
        ),
        (
            "http.listen=7480",
            "http.listen: must be a string or a list of strings, not a number",
        ),
        (
            "http.listen=0.0.0.0:7400",
            "http: cannot listen on 0.0.0.0:7400, which is taken by the sidecar itself on front; choose another port",
        ),
        (
            "http={listen=[\"[::1]:1\", \"[::1]:1\"]}",
            "http.listen: names an address twice; remove one",
        ),
        (
            "http={listen=\"[::]:1\", confirm=\"yes\"}",
            "http.confirm: must be true or false without quotes, not a string",
        ),
        (
            "http={listen=\"[::]:1\", max_connections=0}",
            "http.max_connections: 0 is out of range; it must be a number from 1 to 1000000",
        ),
        (
            "control.listen=127.0.0.1:7481",
            r#"control.listen: 127.0.0.1:7481 without a token would obey anybody; add a line like: token = "file:/etc/baton/token", or listen on "unix:PATH""#,
        ),
        (
            "control={listen=\"127.0.0.1:7481\", token=\"file:short\"}",
            "control.token: the token in short must be 16 or more printable characters without spaces; make one with: baton keygen > short",
        ),
        (
            "control.listen=unix:",
            r#"control.listen: names no path; write "unix:/run/baton/{node}.sock""#,
        ),
        (
            "control.listen=/run/baton.sock",
            r#"control.listen: "/run/baton.sock" is neither "unix:PATH" nor IP:PORT; write "unix:/run/baton/{node}.sock""#,
        ),
        (
            "dns={listen=\"[::]:53\"}",
            r#"[dns] lacks "zone"; add a line like: zone = "orders.internal""#,
        ),
        (
            "dns={listen=\"[::]:53\", zone=\"10.0.0.1\"}",
            r#"dns.zone: "10.0.0.1" is not a domain name; write it like "orders.internal""#,
        ),
        (
            "dns={listen=\"[::]:53\", zone=\"x\", ttl=\"500ms\"}",
            r#"dns.ttl: must be whole seconds, as in "0s" or "1s""#,
        ),
        (
            "dns={listen=\"[::]:53\", zone=\"x\", ttl=1}",
            r#"dns.ttl: 1 has no unit; write "1ms", "1s" or another of ms, s, m, h, d"#,
        ),
    ];
    let dir = Dir::new();
    let mut wrong = String::new();
    for (set, expected) in cases {
        let error = dir.error(SMALL, None, &[set]);
        let got = error.strip_prefix(&format!("--set {set}: ")).unwrap_or(&error);
        if got != *expected {
            wrong += &format!("{set}\n  {got:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Whole files, and every line they get.
#[test]
fn every_problem_of_a_file_is_listed_in_its_order() {
    let cases: &[(&str, &str)] = &[
        (
            "",
            "c.toml:1: no [cluster]; add a table [cluster] with name, window and key\n\
                     c.toml:1: no networks; add a table [networks] with a line like: front = { port = 7400 }\n\
                     c.toml:1: no nodes; add a table for each node, like: [nodes.a] front = \"10.0.1.11\"",
        ),
        (
            "[cluster]\nname = orders\n",
            r#"c.toml:2: a string without quotes; write "orders""#,
        ),
        (
            "[cluster]\nname =\n",
            r#"c.toml:2: a value is missing; write it like name = "orders""#,
        ),
        (
            "[cluster]\nname = \"a\"\nname = \"b\"\n",
            r#"c.toml:3: "name" is there twice; remove one"#,
        ),
        (
            "[cluster]\n[cluster]\n",
            r#"c.toml:2: "cluster" is there twice; remove one"#,
        ),
        ("[cluster\n", "c.toml:1: not TOML: unclosed table; expected `]`"),
        (
            "[cluster]\nname = \"orders\n",
            r#"c.toml:2: not TOML: invalid basic string; expected `"`"#,
        ),
        (
            "window = \"1s\"\n[cluster]\nname = \"x\"\nkey = \"file:k\"\n[networks.n]\n[nodes.a]\nn = \"a\"\n",
            r#"c.toml:1: "window" stands outside of any table; tables are [cluster], [networks], [nodes], [storage], [check], [actions], [process], [roles], [agent], [http], [control], [dns]"#,
        ),
        (
            "[cluster]\nname = \"x\"\nwindw = 5\n\n[networks]\nfront = {}\n[nodes.a]\nfront = \"1.2.3\"\n\
             [nodes.b]\nkind = \"wittness\"\nfrnt = \"1.2.3.4\"\n[nodes.c]\n[http]\nlisten = [\"0.0.0.0:7480\",\n 7481]\n\
             [dns]\nlisten = \"[::]:53\"\n",
            "c.toml:1: [cluster] lacks \"key\"; add a line like: key = \"file:/etc/baton/cluster.key\"\n\
                     c.toml:3: unknown key \"windw\" in [cluster]; did you mean \"window\"?\n\
                     c.toml:8: nodes.a.front: \"1.2.3\" is not an address or host name; write it like \"10.0.1.11\", \"fd00::11\" or \"a.example.org\"\n\
                     c.toml:10: nodes.b.kind: \"wittness\" is not valid; use one of member, observer, witness\n\
                     c.toml:11: nodes.b.frnt: neither a network nor a key of nodes; did you mean \"front\"?\n\
                     c.toml:12: [nodes.c] has no address; add a line like: front = \"10.0.1.11\"\n\
                     c.toml:14: http.listen: must be a string in quotes, not a number\n\
                     c.toml:16: [dns] lacks \"zone\"; add a line like: zone = \"orders.internal\"",
        ),
        (
            "[cluster]\nname = \"x\"\nkey = \"file:k\"\n[networks.n]\n[nodes.a]\nn = \"a\"\n\
             [check]\ntcp = \"a:1\"\n[roles.x]\n",
            "c.toml:9: roles: cannot stand beside a top-level [check], [actions] or [process]; rename those to [roles.main.check], [roles.main.actions] and [roles.main.process]",
        ),
        (
            "[cluster]\nname = \"x\"\nkey = \"file:k\"\n[networks.n]\n[nodes.a]\nn = \"a.example\"\n\
             [http]\nlisten = \"{n}:1\"\n[control]\nlisten = \"unix:/{m}\"\n",
            "c.toml:8: http.listen: {n} stands for a.example on node a; it must be an address there, like \"10.0.1.11\"\n\
                     c.toml:10: control.listen: unknown placeholder {m}; did you mean \"{n}\"?",
        ),
    ];
    let dir = Dir::new();
    let mut wrong = String::new();
    for (text, expected) in cases {
        let got = dir.error(text, None, &[]);
        if got != *expected {
            wrong += &format!("{text:?}\n  {got:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_name_that_is_not_in_the_file_is_answered_with_those_that_are() {
    let error = Dir::new().error(SMALL, Some("z"), &["nodes.b.front=10.0.0.2"]);
    let expected =
        "c.toml:4: nodes: no node is called \"z\"; start with --node NAME (or BATON_NODE) and one of a, b";
    assert_eq!(error, expected);
}

#[test]
fn all_that_is_wrong_with_one_value_is_told() {
    let sets = ["nodes.b={ front = \"10.0.0.2\", Front = \"10.0.0.1\" }"];
    let error = Dir::new().error(SMALL, Some("a"), &sets);
    for part in [
        "nodes.b.Front: is there twice",
        "nodes.b.Front: 10.0.0.1 port 7400 is already nodes.a.front",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_placeholder_must_mean_something_on_this_node() {
    let sets = [
        "networks.back={}",
        "nodes.b.back=10.1.0.2",
        "storage.dir=/s/{back}",
    ];
    assert_eq!(
        Dir::new().error(SMALL, Some("a"), &sets),
        "--set storage.dir=/s/{back}: storage.dir: {back} means nothing on node a; add back = \"...\" to [nodes.a]"
    );
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let text = SMALL.replace("file:k", "c2VjcmV0");
    assert!(!Dir::new().error(&text, None, &[]).contains("c2VjcmV0"));
}

#[test]
fn a_hostile_file_cannot_write_to_the_terminal() {
    let text = SMALL.replace("front = {}", "\"fr\\u001b[2Jont\" = {}");
    let error = Dir::new().error(&text, None, &[]);
    assert!(
        !error.contains('\u{1b}') && error.contains("fr?[2Jont"),
        "{error}"
    );
}
