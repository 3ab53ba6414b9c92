//! What is done to nodes: by operators, by fate, and by the simulator.

use super::*;

impl World {
    /// Starts a node. What a guardian that died has left is gone before; one that lives starts the agent when it is through with what
    /// the last one left.
    pub fn start(&mut self, n: usize) {
        // Whose name the file has no more is refused, as by the real agent; that may have come about while its start waited.
        if !self.config.nodes.contains_key(&self.nodes[n].name) {
            return;
        }
        if self.nodes[n].hung {
            self.nodes[n].start_after = true;
            return;
        }
        if !self.nodes[n].above.lives() {
            if !self.nodes[n].runs.is_empty() {
                self.nodes[n].start_after = true;
                return;
            }
            self.guard(n);
        }
        if !self.may_boot(n) {
            self.nodes[n].start_after = true;
            return;
        }
        self.boot(n);
    }

    fn boot(&mut self, n: usize) {
        let mut unfinished = self.left_over(n);
        broken!(ForgetsUnfinished => {
            unfinished.clear();
        });
        let mut config = self.config.clone();
        config.me = self.nodes[n].name.clone();
        let config = Arc::new(config);
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        machine.boot += 1;
        (machine.stopped, machine.leaving, machine.up, machine.frozen) = (false, false, true, false);
        machine.guards = config
            .roles
            .keys()
            .map(|r| (r.clone(), Guard::default()))
            .collect();
        let kept = |role: &RoleName| match machine.app(role) {
            App::Loose(since) => App::Loose(since),
            _ => App::Passive,
        };
        machine.apps = config.roles.keys().map(|r| (r.clone(), kept(r))).collect();
        machine.config = config.clone();
        let start = crate::Start {
            config,
            id: machine.id,
            boot: Boot(machine.boot),
            cluster: machine.cluster,
            durable: machine.disk.clone(),
            unfinished: unfinished.clone(),
            disk: Some(format!("the disk of {}", machine.name)),
            last_write: None,
        };
        machine.core = Some(Box::new(Core::new(start, now)));
        machine.writes = Writes::default();
        (machine.busy_until, machine.tick, machine.spins) = (0, None, 0);
        (machine.quits, machine.under_standstill, machine.superseded) = (false, false, false);
        machine.may_lead = true;
        machine.inbox.clear();
        machine.answers.clear();
        machine.unheard.clear();
        let applied = machine.applied.clone();
        self.fitness(n);
        self.say(n, || "started".into());
        self.agent_begins(n, &unfinished);
        self.tell_sides(n);
        self.give(n, Input::Tick);
        for role in self.roles() {
            let healthy = self.nodes[n].healthy[&role];
            self.give_health(n, &role, healthy.into());
        }
        if let Some((state, applied)) = applied {
            self.to(n, MS, Input::Learned { state, applied });
        }
        self.elect_later();
        self.replicate();
    }

    /// The process ends without a word, and its machine with it. `notice`: the agent alone; its guardian stops the application, and
    /// then says so to everybody.
    pub fn kill(&mut self, n: usize, notice: bool) {
        // What was being written may be on the disk or not; what waited is not.
        let torn = self.dice.roll(2) == 0;
        let (was_up, now) = (self.nodes[n].up, self.now);
        if notice && !was_up {
            return; // it is dead
        }
        let machine = &mut self.nodes[n];
        if let Some((_, durable)) = machine.writing.take().filter(|_| torn) {
            machine.disk = durable;
        }
        if !notice {
            let roles: Vec<RoleName> = machine.apps.keys().cloned().collect();
            for role in &roles {
                machine.passive(role, now);
            }
            machine.apps.clear();
            machine.runs.clear();
            machine.doing.clear();
            machine.minded.clear();
            let which = machine.above.which + 1;
            machine.above = Above::none(which);
            machine.start_after = false;
        }
        self.agent_gone(n);
        self.say(n, || "killed".into());
        if notice {
            self.actions_die(n);
            let which = self.nodes[n].above.which;
            let fate = guardian::Fate::Killed(guardian::fate::SIGKILL);
            let ended = guardian::Input::AgentEnded(fate);
            self.at(MS / 10, What::Guardian(n, which, ended));
            self.nobody_there(n);
        }
        self.elect_later();
    }

    fn agent_gone(&mut self, n: usize) {
        let machine = &mut self.nodes[n];
        machine.to_write = None;
        machine.core = None;
        (machine.up, machine.frozen) = (false, false);
        machine.guards.values().for_each(Guard::shut);
        machine.buffered.clear();
        machine.answers.clear();
        self.fitness(n);
    }

    /// The agent ends by itself, without a guardian that would hear of it.
    pub(super) fn agent_exits(&mut self, n: usize) {
        self.nodes[n].writing = None;
        self.agent_gone(n);
        self.say(n, || "the agent exits".into());
        self.actions_die(n);
        self.nobody_there(n);
        self.elect_later();
    }

    /// Roles whose application may act since the run before: by the page, or by what is on the disk.
    pub fn left_over(&self, n: usize) -> BTreeSet<RoleName> {
        let machine = &self.nodes[n];
        let lent = |role: &RoleName| machine.above.page.left_over(machine.place(role));
        let loose = |role: &RoleName| matches!(machine.app(role), App::Loose(_));
        let roles = machine.config.roles.keys();
        roles.filter(|role| lent(role) || loose(role)).cloned().collect()
    }

    /// The data directory is lost.
    pub fn wipe(&mut self, n: usize) {
        self.kill(n, false);
        self.say(n, || "its disk is lost".into());
        let machine = &mut self.nodes[n];
        if !is(Rule::WipedKeepsId) {
            machine.id = NodeId(machine.id.0 + 1000);
        }
        machine.boot += 10;
        machine.cloned = false;
        machine.disk = Durable::default();
        machine.hung = false;
        machine.applied = None;
        machine.cluster = ClusterId(0);
    }

    /// The machine is replaced by one whose clock is behind.
    pub fn replace_behind(&mut self, n: usize) {
        self.wipe(n);
        let machine = &mut self.nodes[n];
        machine.lowest -= 100;
        machine.boot = machine.lowest;
    }

    pub fn freeze(&mut self, n: usize) {
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        (machine.frozen, machine.read) = (true, now);
        self.say(n, || "frozen".into());
        self.nobody_there(n);
        self.elect_later();
    }

    pub fn thaw(&mut self, n: usize) {
        self.nodes[n].frozen = false;
        self.nodes[n].behind_until = self.now + 1000 * MS;
        self.say(n, || "thawed".into());
        if self.nodes[n].quits {
            self.line_ends(n);
        }
        for answer in std::mem::take(&mut self.nodes[n].answers) {
            self.answered(n, answer);
        }
        for input in std::mem::take(&mut self.nodes[n].buffered) {
            self.give(n, input);
        }
        self.give(n, Input::Tick);
    }

    /// The hypervisor stops the machine, and its clock with it: outside of what S1 assumes.
    pub fn pause_machine(&mut self, n: usize, d: Duration) {
        let shown = self.clock(n);
        self.freeze(n);
        self.nodes[n].paused = true;
        self.run(d);
        self.nodes[n].clock = (self.now, shown.0);
        self.nodes[n].paused = false;
        self.clock_changed(n);
        if self.nodes[n].up {
            self.thaw(n);
        }
    }

    /// Loses everything between `n` and everybody, on these networks.
    pub fn silence(&mut self, n: usize, networks: &[usize]) {
        self.one_way(n, networks, true, true);
    }

    pub fn one_way(&mut self, n: usize, networks: &[usize], outgoing: bool, incoming: bool) {
        for other in 0..self.nodes.len() {
            for network in networks {
                if outgoing {
                    self.cut.insert((n, other, *network));
                }
                if incoming {
                    self.cut.insert((other, n, *network));
                }
            }
        }
        self.elect_later();
    }

    /// Pulls a node's cable on a network, or plugs it in again.
    pub fn plug(&mut self, n: usize, network: usize, plugged: bool) {
        if plugged {
            self.unplugged.remove(&(n, network));
            let unplugged = self.unplugged.clone();
            let here = |from: usize, to: usize| {
                (from == n || to == n) && !unplugged.contains(&(from + to - n, network))
            };
            self.cut
                .retain(|(from, to, on)| *on != network || !here(*from, *to));
        } else {
            self.unplugged.insert((n, network));
            self.silence(n, &[network]);
        }
        self.tell_sides(n);
    }

    /// The node sees its carriers.
    fn tell_sides(&mut self, n: usize) {
        if self.config.networks.iter().any(|network| network.clients) {
            let side = |network| Side {
                carrier: Some(!self.unplugged.contains(&(n, network))),
                gateway: None,
            };
            let sides = (0..self.config.networks.len()).map(side).collect();
            self.give_sides(n, sides);
        }
    }

    pub fn give_sides(&mut self, n: usize, sides: Vec<Side>) {
        self.give(n, Input::Sides(sides));
    }

    /// Cuts the two apart, on every network.
    pub fn part(&mut self, a: usize, b: usize) {
        for network in 0..self.config.networks.len() {
            self.cut.extend([(a, b, network), (b, a, network)]);
        }
        self.elect_later();
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.deaf.clear();
        for (n, _) in std::mem::take(&mut self.unplugged) {
            self.tell_sides(n);
        }
        (self.loss, self.twice, self.lag) = (0, 0, 0);
        (self.late, self.flush_late) = (Duration::ZERO, Duration::ZERO);
        self.no_lines = false;
        for node in &mut self.nodes {
            (node.log_cut, node.slow) = (false, Duration::ZERO);
            (node.promotes, node.demotes, node.fences) = (Way::Well, Way::Well, Way::Well);
            (node.lingers, node.log_stuck_until) = (Duration::ZERO, 0);
        }
        for n in 0..self.nodes.len() {
            self.answer(n);
        }
        self.elect_later();
        self.replicate();
    }

    /// Every running node that is in the new configuration reads it.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
        for n in self.members() {
            let mut config = self.config.clone();
            config.me = name(n);
            if self.nodes.get(n).is_some_and(|m| m.core.is_some()) {
                self.nodes[n].config = Arc::new(config.clone());
                self.give(n, Input::Configured(Arc::new(config)));
                self.instruct(n);
            }
        }
    }

    pub fn stop(&mut self, n: usize) {
        if self.nodes[n].up {
            self.nodes[n].leaving = true;
            self.fitness(n);
            self.give(n, Input::Stop { broken: None });
        }
    }

    pub fn ask(&mut self, n: usize, request: Request) {
        let id = self.count;
        self.give(n, Input::Ask { id, request });
    }

    /// A face in `confirm` mode is asked.
    pub fn ask_confirmation(&mut self, n: usize, role: RoleName) {
        self.count += 1;
        let id = self.count;
        let before = self.invariants().greatest(&role);
        self.confirms.push((id, n, role.clone(), before));
        self.give(n, Input::Confirm { id, role });
    }

    pub fn set_health(&mut self, n: usize, role: &RoleName, healthy: bool) {
        self.nodes[n].healthy.insert(role.clone(), healthy);
        self.fitness(n);
        self.give_health(n, role, healthy.into());
    }

    pub fn give_health(&mut self, n: usize, role: &RoleName, health: Health) {
        let input = Input::Health {
            role: role.clone(),
            health,
            reason: "as the simulator says".into(),
        };
        self.give(n, input);
    }

    /// The programs of a role are looked at: all can be run, or one cannot.
    pub fn look_at_programs(&mut self, n: usize, role: &RoleName, lack: Option<&str>) {
        let (role, lack) = (role.clone(), lack.map(str::to_owned));
        self.give(n, Input::Programs { role, lack });
    }

    pub fn set_drift(&mut self, n: usize, ppm: i64) {
        let now = self.now;
        let machine = &mut self.nodes[n];
        machine.clock = (now, machine.clock(now).0);
        machine.drift_ppm = ppm;
        self.clock_changed(n);
    }

    /// Notes since when the node must not be put in line.
    pub(super) fn fitness(&mut self, n: usize) {
        let now = self.now;
        let machine = &mut self.nodes[n];
        for (role, healthy) in &machine.healthy {
            if *healthy && machine.up && !machine.leaving {
                machine.unfit_since.remove(role);
            } else {
                machine.unfit_since.entry(role.clone()).or_insert(now);
            }
        }
    }
}
