//! The file in which a KX Control cluster keeps its hosts, `failover.csv`: lines of `host,port[,port]`. Pure.

use super::plan::Seat;
use baton_shared::config::Host;
use baton_shared::id::NodeName;

/// What such a file says. Its first port is the application's, where its clients connect: Baton stands beside the application, so it
/// checks that port and does not take it. The second is the one by which the hosts hear each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sheet {
    pub seats: Vec<Seat>,
    pub app_port: u16,
    pub port: Option<u16>,
}

/// A line that is good by itself.
#[derive(Debug)]
struct Row {
    line: usize,
    host: Host,
    name: NodeName,
    app_port: u16,
    port: Option<u16>,
}

/// Reads it. `file` is its name.
///
/// # Errors
///
/// Every line that is wrong, as `file:line: what`.
pub(super) fn read(text: &str, file: &str) -> Result<Sheet, String> {
    let mut rows: Vec<Row> = Vec::new();
    let mut errors = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        match row(line, text, rows.len() + 1).and_then(|row| fits(&rows, row)) {
            Ok(row) => rows.push(row),
            Err(error) => errors.push(format!("{file}:{line}: {error}")),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    let Some(Row { app_port, port, .. }) = rows.first() else {
        return Err(format!("{file}:1: no host; write a line HOST,PORT for each"));
    };
    Ok(Sheet {
        app_port: *app_port,
        port: *port,
        seats: rows
            .into_iter()
            .map(|Row { name, host, .. }| Seat {
                name,
                addresses: vec![Some(host)],
            })
            .collect(),
    })
}

fn row(line: usize, text: &str, number: usize) -> Result<Row, String> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let (host, app_port, port) = match fields[..] {
        [host, app_port] => (host, app_port, None),
        [host, app_port, port] => (host, app_port, Some(port)),
        _ => return Err(format!("\"{text}\" is not HOST,PORT or HOST,PORT,PORT")),
    };
    let host: Host = host.parse()?;
    let name = match &host {
        Host::Ip(_) => format!("node{number}"),
        Host::Name(name) => name.split('.').next().unwrap_or_default().to_owned(),
    };
    let name = name
        .parse()
        .map_err(|error| format!("no name for a node: {error}; or name the nodes yourself, with --node"))?;
    let app_port = number_of_port(app_port)?;
    let port = port.map(number_of_port).transpose()?;
    if port == Some(app_port) {
        return Err(format!(
            "port {app_port} is the application's already; give Baton another, or none for 7400"
        ));
    }
    Ok(Row {
        line,
        host,
        name,
        app_port,
        port,
    })
}

fn number_of_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("\"{text}\" is not a port; write a number from 1 to 65535"))
}

/// A row beside those before it: one configuration is for all hosts.
fn fits(rows: &[Row], row: Row) -> Result<Row, String> {
    if let Some(other) = rows.iter().find(|other| other.name == row.name) {
        return Err(match other.host == row.host {
            true => format!("{} is on line {}, too; remove one", row.host, other.line),
            false => format!(
                "the node would be called {}, as that of line {}; name the nodes yourself, with --node",
                row.name, other.line
            ),
        });
    }
    match rows.first() {
        Some(first) if (first.app_port, first.port) != (row.app_port, row.port) => Err(format!(
            "other ports than on line {}; all nodes have the same",
            first.line
        )),
        _ => Ok(row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_become_nodes() {
        let text = "# ours\n\nservera.domain.com,5000,5010\r\n 10.0.1.12 , 5000,5010 # the other\n";
        let sheet = read(text, "failover.csv").unwrap();
        assert_eq!((sheet.app_port, sheet.port), (5000, Some(5010)));
        let seat = |text: &str| text.parse::<Seat>().unwrap();
        assert_eq!(
            sheet.seats,
            [seat("servera=servera.domain.com"), seat("node2=10.0.1.12")]
        );
        assert_eq!(read("a,1\nb,1", "f").unwrap().port, None);
    }

    #[test]
    fn every_wrong_line_is_told() {
        let errors = |text: &str| read(text, "failover.csv").unwrap_err();
        for (text, says) in [
            ("", "failover.csv:1: no host"),
            ("a,5000\nb\n", "failover.csv:2: \"b\" is not HOST,PORT"),
            (
                "a,5000\nb,5000,1,2\n",
                "failover.csv:2: \"b,5000,1,2\" is not HOST,PORT",
            ),
            ("host,port\na,5000\n", "failover.csv:1: \"port\" is not a port"),
            ("a,0\n", "failover.csv:1: \"0\" is not a port"),
            ("a,70000\n", "failover.csv:1: \"70000\" is not a port"),
            ("\n10.0.1,5000\n", "failover.csv:2: \"10.0.1\" is not an address"),
            ("a,5000,5000\n", "failover.csv:1: port 5000 is the application's"),
            ("a,5000\n\na,5000\n", "failover.csv:3: a is on line 1, too"),
            (
                "a.x,5000\na.y,5000\n",
                "failover.csv:2: the node would be called a, as that of line 1",
            ),
            ("a,5000\nb,5001\n", "failover.csv:2: other ports than on line 1"),
            ("a_b,5000\n", "failover.csv:1: no name for a node"),
        ] {
            assert!(errors(text).starts_with(says), "{text}: {}", errors(text));
        }
        assert_eq!(errors("a\nb,5000\nc,x\n").lines().count(), 2);
    }
}
