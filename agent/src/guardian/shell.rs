//! The guardian's hands and ears: one loop that sleeps in `poll`, tells the machine what it learns, and carries out what that says, in
//! order. Nothing in it waits but that sleep.

use super::notices::Notices;
use super::running::{News, Orphans, Running, Strays, fate};
use super::speaker::{Speaker, forked};
use super::{GuardianChannel, Hello, SharedPage, Welcome, base, framed, lock, remains, unframe};
use crate::keeper::cgroup;
use crate::keeper::environment::Vault;
use crate::keeper::mark;
use crate::keeper::sweep::Stat;
use crate::keeper::{self, Start, kill_below};
use baton_core::guardian::page::LeasePage;
use baton_core::guardian::{Fate, Fence, Guardian, Input, Output, Request, Rest};
use baton_shared::clock::Mono;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The first file descriptor that a service manager passes, and how many are looked at.
const FIRST_PASSED: i32 = 3;
const MAX_PASSED: i32 = 64;
/// Looks, when the timer cannot be set.
const LOOK: Duration = Duration::from_millis(1);
/// Exit status when the agent cannot be started.
const ENVIRONMENT: u8 = 1;

/// Which of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Application(usize),
    Fence(usize),
}

/// The guardian's shell.
pub struct Shell {
    machine: Guardian,
    vault: Vault,
    page: SharedPage,
    bell: RawFd,
    signals: RawFd,
    /// It counts suspend, as [`Mono`] does.
    timer: RawFd,
    speaker: Speaker,
    agent: Option<Pid>,
    channel: Option<UnixStream>,
    heard: Vec<u8>,
    /// The agent has said whose it is.
    begun: bool,
    lock: Option<OwnedFd>,
    kept: BTreeMap<What, Running>,
    /// Fences that have ended, and left something that runs on.
    left: Vec<Running>,
    /// What is over, and not yet tidied away.
    over: Vec<Running>,
    /// How many fences were run.
    fences: u64,
    strays: Option<Strays>,
    /// The same for keepers that died before their last word; how many of the agent's have.
    orphans: Option<Orphans>,
    lost: u64,
    notices: Option<Notices>,
    /// What is to be told to the machine.
    learned: VecDeque<Input>,
    exit: Option<u8>,
}

impl Shell {
    /// Everything that it needs, but the agent.
    pub fn start(vault: Vault) -> io::Result<Shell> {
        keep_sockets(&vault);
        let speaker = Speaker::start()?;
        // SAFETY: plain system calls; `set` is initialised by sigemptyset before it is used.
        let (signals, bell, timer) = unsafe {
            // Orphans of the agent become children of this process: they can be found, killed and reaped.
            if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::prctl(libc::PR_SET_NAME, super::NAME.as_ptr(), 0, 0, 0);
            // A terminal that stops its jobs would stop this one, and the agent, but not the application. And children that are ignored
            // could not be waited for.
            for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
                libc::signal(signal, libc::SIG_IGN);
            }
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            // What it starts gets the ordinary priority again.
            crate::control::priority::raise();
            let set = signal_set();
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            (
                libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK),
                libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK),
                libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK),
            )
        };
        if signals < 0 || bell < 0 || timer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Shell {
            machine: Guardian::new(),
            vault,
            page: SharedPage {
                page: shared_page()?,
                bell,
            },
            bell,
            signals,
            timer,
            speaker,
            agent: None,
            channel: None,
            heard: Vec::new(),
            begun: false,
            lock: None,
            kept: BTreeMap::new(),
            left: Vec::new(),
            over: Vec::new(),
            fences: 0,
            strays: None,
            orphans: None,
            lost: 0,
            notices: None,
            learned: VecDeque::new(),
            exit: None,
        })
    }

    /// Watches an agent to its end, and gives the exit status.
    pub fn watch(mut self, agent: &impl Fn(GuardianChannel) -> u8) -> u8 {
        lock_memory();
        loop {
            self.learned.push_back(Input::Look);
            self.think(agent);
            self.over.clear();
            if let Some(status) = self.exit {
                self.kept.clear();
                if let Some(base) = cgroup::base() {
                    base.remove();
                }
                self.speaker.end();
                return status;
            }
            self.sleep();
            self.take_signals();
            self.listen();
            self.look_after_kept();
            self.reap();
            self.clear_strays();
            self.clear_orphans();
        }
    }

    /// Tells the machine what was learned, and does what it says.
    fn think(&mut self, agent: &impl Fn(GuardianChannel) -> u8) {
        while let Some(input) = self.learned.pop_front() {
            self.machine.handle(input, self.page.page, Mono::now());
            while let Some(output) = self.machine.poll_output() {
                self.act(output, agent);
            }
        }
    }

    fn act(&mut self, output: Output, agent: &impl Fn(GuardianChannel) -> u8) {
        match output {
            Output::StartAgent => {
                let input = self.start_agent(agent);
                self.learned.push_back(input);
            }
            Output::SignalAgent(signal) => {
                if let (Some(agent), Some(signal)) = (self.agent, Signal::from_named_raw(signal)) {
                    let _ = kill_process(agent, signal); // it may be gone: then its end is the next thing heard
                }
            }
            Output::StartApplication { place, command, env } => self.start_application(place, &command, &env),
            Output::SignalApplication { place, signal, whole } => {
                if let Some(running) = self.kept.get(&What::Application(place)) {
                    running.kept().signal(signal, whole);
                }
            }
            Output::KillApplication { place } => self.kill(What::Application(place)),
            Output::KillPromotion { place } => self.kill_promotion(place),
            Output::RunFence { place, fence, env } => self.run_fence(place, &fence, &env),
            Output::KillFence { place } => self.kill(What::Fence(place)),
            Output::KillRemains => {
                self.strays = Some(Strays::new(Mono::now()));
                self.clear_strays();
            }
            Output::Announce { why } => {
                let mut notices = self.machine.instructions().map(|said| Notices::new(said, &why));
                notices.iter_mut().for_each(Notices::send);
                self.notices = notices;
            }
            Output::AnnounceAgain => self.notices.iter_mut().for_each(Notices::send),
            Output::Answer(answer) => {
                // Never waits: an agent that stands still must not hold this process up.
                if let Some(channel) = &mut self.channel
                    && channel.write_all(&framed(&answer)).is_err()
                {
                    self.channel = None; // half an answer is none; an agent that cannot be spoken to notices the end of it
                }
            }
            Output::Say(text) => self.speaker.say(&text),
            Output::Exit(status) => self.exit = Some(status),
        }
    }

    /// Forks. The child never returns from here.
    fn start_agent(&mut self, agent: &impl Fn(GuardianChannel) -> u8) -> Input {
        let guardian = rustix::process::getpid();
        let pair = UnixStream::pair();
        let (mine, its) = match pair {
            Ok(pair) => pair,
            Err(error) => return Input::AgentNotStarted(error.to_string()),
        };
        // SAFETY: this process has one thread, so the child may do anything that a fresh process may.
        let id = unsafe { libc::fork() };
        if id == 0 {
            drop(mine);
            let status = self.become_agent(guardian, its, agent);
            std::process::exit(status.into());
        }
        let id = match forked(id) {
            Ok(id) => id,
            Err(error) => return Input::AgentNotStarted(error.to_string()),
        };
        self.agent = Some(id);
        self.channel = mine.set_nonblocking(true).is_ok().then_some(mine);
        self.heard.clear();
        self.begun = false;
        Input::AgentStarted
    }

    /// In the child: what is the guardian's is let go.
    fn become_agent(&mut self, guardian: Pid, its: UnixStream, agent: &impl Fn(GuardianChannel) -> u8) -> u8 {
        // SAFETY: this is the child: the descriptors are its own copies, signals go back to what they do by themselves, and it has
        // one thread still.
        unsafe {
            libc::close(self.signals);
            libc::close(self.timer);
            let set = signal_set();
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
            libc::prctl(libc::PR_SET_NAME, super::AGENT.as_ptr(), 0, 0, 0);
            self.vault.hand_over();
        }
        // A keeper whose guardian is gone must see the end of its line; and the lock is the guardian's.
        let kept = std::mem::take(&mut self.kept).into_values();
        kept.chain(std::mem::take(&mut self.left))
            .for_each(Running::let_go);
        (self.notices, self.lock, self.channel) = (None, None, None);
        self.speaker.leave();
        if rustix::process::getppid() != Some(guardian) {
            return ENVIRONMENT; // an orphan
        }
        agent(GuardianChannel {
            guardian: None,
            page: self.page,
            stream: its,
        })
    }

    /// Until a signal, a word of the agent or of a keeper, or the next thing that is due.
    fn sleep(&self) {
        let now = Mono::now();
        let mut due = self.machine.next_wake(self.page.page, now);
        for running in self.kept.values().chain(&self.left) {
            due = due.min(running.due().unwrap_or(due));
        }
        due = due.min(self.strays.as_ref().map_or(due, |strays| strays.next));
        due = due.min(self.orphans.as_ref().map_or(due, |orphans| orphans.next));
        let due = due.max(now).0.max(1); // 0 would disarm the timer
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut when: libc::itimerspec = unsafe { std::mem::zeroed() };
        when.it_value.tv_sec = (due / 1_000_000_000).cast_signed();
        when.it_value.tv_nsec = (due % 1_000_000_000).cast_signed();
        let poll = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = vec![
            poll(self.signals),
            poll(self.channel.as_ref().map_or(-1, AsRawFd::as_raw_fd)),
            poll(self.bell),
            poll(self.timer),
        ];
        fds.extend(
            self.kept
                .values()
                .chain(&self.left)
                .filter_map(Running::ear)
                .map(poll),
        );
        let mut rung = 0u64;
        // SAFETY: valid entries; a negative descriptor is skipped; `when` outlives the call. The event is eight bytes long, and nothing
        // is lost if it has not rung.
        unsafe {
            let set = libc::timerfd_settime(
                self.timer,
                libc::TFD_TIMER_ABSTIME,
                &raw const when,
                std::ptr::null_mut(),
            );
            // A timer that cannot be set is made up for by looking often.
            let wait = if set == 0 {
                -1
            } else {
                LOOK.as_millis() as libc::c_int
            };
            libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, wait);
            if libc::read(self.bell, (&raw mut rung).cast(), size_of_val(&rung)) > 0 {
                // A lease may bind what runs already.
                self.kept.values().for_each(|running| running.kept().look());
            }
        }
    }

    fn take_signals(&mut self) {
        loop {
            // SAFETY: all-zero is a valid value of this plain structure.
            let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
            let size = size_of::<libc::signalfd_siginfo>();
            // SAFETY: `info` is as long as is said, and outlives the call.
            let length = unsafe { libc::read(self.signals, (&raw mut info).cast(), size) };
            if length <= 0 {
                return;
            }
            let signal = info.ssi_signo.cast_signed();
            if signal != libc::SIGCHLD {
                self.learned.push_back(Input::Signal(signal));
            }
        }
    }

    /// Takes what the agent asks for.
    fn listen(&mut self) {
        let mut chunk = [0; 8192];
        while let Some(channel) = &mut self.channel {
            match channel.read(&mut chunk) {
                Ok(0) => self.channel = None, // it is ending
                Ok(length) => self.heard.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.channel = None,
            }
            if let Err(error) = self.understand() {
                self.channel = None;
                self.learned.push_back(Input::Deaf(error));
            }
        }
    }

    fn understand(&mut self) -> Result<(), String> {
        if !self.begun {
            let Some(hello) = unframe::<Hello>(&mut self.heard)? else {
                return Ok(());
            };
            self.begun = true;
            let welcome = self.welcome(&hello);
            if let Some(channel) = &mut self.channel {
                channel
                    .write_all(&framed(&welcome))
                    .map_err(|error| error.to_string())?;
            }
        }
        while let Some(request) = unframe::<Request>(&mut self.heard)? {
            self.learned.push_back(Input::Request(request));
        }
        Ok(())
    }

    /// The first agent: there is no other guardian of this node, and nothing left of one before.
    fn welcome(&mut self, hello: &Hello) -> Welcome {
        if self.lock.is_some() {
            return Ok(());
        }
        let dir = lock::dir(self.vault.get(lock::VARIABLE).and_then(|dir| dir.to_str()));
        let lock = lock::take(&dir, &hello.cluster, &hello.node)?;
        let base = base(&dir, &hello.cluster, &hello.node).ok();
        let killed = remains::clear(&hello.cluster, &hello.node, base.as_ref()).map_err(|left| {
            format!("a run of this node before this one has left processes that cannot be killed: {left}; end them, or restart the machine")
        })?;
        if killed > 0 {
            self.speaker.say(&format!(
                "a run of this node before this one had left {killed} processes of its application; they were killed"
            ));
        }
        cgroup::adopt(base);
        self.lock = Some(lock);
        mark::adopt(&hello.cluster, &hello.node);
        Ok(())
    }

    fn role(&self, place: usize) -> String {
        let role = self.machine.instructions().and_then(|said| said.roles.get(place));
        role.map_or_else(|| place.to_string(), |plan| plan.role.to_string())
    }

    /// Starts something below a keeper. Waits for nothing.
    fn keep(
        &self,
        name: &str,
        command: &[String],
        env: &[(String, String)],
        (lease, rest): (Option<(&'static baton_core::guardian::RoleSlot, Duration)>, Rest),
    ) -> io::Result<Running> {
        let said = self.machine.instructions();
        let secrets: BTreeSet<String> = said
            .map(|said| said.secrets.iter().cloned().collect())
            .unwrap_or_default();
        let added = env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let kept = keeper::start(Start {
            command,
            environment: self.vault.for_child(&secrets, added),
            input: None,
            output: None,
            cgroup: cgroup::base().and_then(|base| base.cgroup(name).ok()),
            lease,
            rest,
        })?;
        Ok(Running::new(kept))
    }

    fn start_application(&mut self, place: usize, command: &[String], env: &[(String, String)]) {
        self.over.clear(); // a cgroup that is removed now would be missed by what is started in it
        let said = self.machine.instructions().and_then(|said| said.roles.get(place));
        let lead = said.map_or(Duration::ZERO, |plan| plan.kill_lead);
        let lease = self.page.page.slot(place).map(|slot| (slot, lead));
        drop(self.kept.remove(&What::Application(place))); // one that could not be run, and its cgroup
        match self.keep(&self.role(place), command, env, (lease, Rest::Killed)) {
            Ok(running) => drop(self.kept.insert(What::Application(place), running)),
            Err(error) => {
                let result = Err(cannot(command, &error));
                self.learned.push_back(Input::Started { place, result });
            }
        }
    }

    fn run_fence(&mut self, place: usize, fence: &Fence, env: &[(String, String)]) {
        let Fence::Command { command, .. } = fence;
        self.fences += 1; // one before it may have left something in its cgroup
        let name = format!("{}-fence-{}", self.role(place), self.fences);
        match self.keep(&name, command, env, (None, Rest::Stays)) {
            Ok(running) => self.left.extend(self.kept.insert(What::Fence(place), running)),
            Err(error) => {
                let fate = Fate::NotStarted(cannot(command, &error));
                self.learned.push_back(Input::FenceEnded { place, fate });
            }
        }
    }

    fn kill(&mut self, what: What) {
        if let Some(running) = self.kept.get_mut(&what) {
            running.kill(Mono::now());
        }
    }

    /// The agent's child: its number cannot pass on while the agent, which would have to reap it, stands still.
    fn kill_promotion(&self, place: usize) {
        let keeper = self
            .page
            .slot(place)
            .and_then(|slot| Pid::from_raw(slot.promotion()));
        let agent = self.agent.map(|agent| agent.as_raw_nonzero().get());
        if let Some(keeper) = keeper
            && Stat::of(keeper).map(|stat| stat.parent) == agent
        {
            kill_below(keeper, None); // its keeper knows its cgroup
        }
    }

    /// Hears keepers, and goes on killing what is to be killed.
    fn look_after_kept(&mut self) {
        let now = Mono::now();
        let all: Vec<What> = self.kept.keys().copied().collect();
        for what in all {
            let news = self
                .kept
                .get_mut(&what)
                .map(|running| running.turn(now))
                .unwrap_or_default();
            for news in news {
                self.tell(what, news);
            }
        }
        let ended = |running: &mut Running| {
            !running
                .turn(now)
                .iter()
                .any(|news| matches!(news, News::Empty(_)))
        };
        self.left.retain_mut(ended);
    }

    fn tell(&mut self, what: What, news: News) {
        let input = match (what, news) {
            (What::Application(place), News::Started(id)) => Input::Started {
                place,
                result: Ok(id),
            },
            (What::Application(place), News::LeaderEnded(how)) => Input::LeaderEnded { place, how },
            (What::Application(place), News::Stuck(processes)) => Input::Stuck { place, processes },
            (What::Application(place), News::NotStarted(why)) => Input::Started {
                place,
                result: Err(why),
            },
            (What::Application(place), News::Empty(took)) => {
                if self.over(what).is_some_and(Running::failed) {
                    return; // it was never there
                }
                Input::Empty { place, took }
            }
            (What::Fence(place), News::LeaderEnded(fate)) => Input::FenceEnded { place, fate },
            (What::Fence(place), News::NotStarted(why)) => Input::FenceEnded {
                place,
                fate: Fate::NotStarted(why),
            },
            (What::Fence(place), News::Empty(_)) => match self.over(what) {
                // Its keeper was killed, and it with it.
                Some(running) if running.leader().is_none() && !running.failed() => Input::FenceEnded {
                    place,
                    fate: Fate::Killed(libc::SIGKILL),
                },
                _ => return,
            },
            (What::Fence(_), News::Started(_) | News::Stuck(_)) => return,
        };
        self.learned.push_back(input);
    }

    /// Nothing of it is left. Its cgroup is removed later: nobody waits for that.
    fn over(&mut self, what: What) -> Option<&Running> {
        let running = self.kept.remove(&what)?;
        self.over.push(running);
        self.over.last()
    }

    /// Reaps whoever has ended.
    fn reap(&mut self) {
        while let Some(id) = ended() {
            if self.agent == Some(id) {
                self.listen(); // what it said before it ended
            }
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            let reaped = unsafe { libc::waitpid(id.as_raw_nonzero().get(), &raw mut status, libc::WNOHANG) };
            let Some(fate) = fate(status).filter(|_| reaped > 0) else {
                return;
            };
            if self.agent == Some(id) {
                (self.agent, self.channel) = (None, None);
                self.learned.push_back(Input::AgentEnded(fate));
            }
            for running in self.kept.values_mut().chain(&mut self.left) {
                running.was_reaped(id);
            }
            self.speaker.was_reaped(id);
        }
        // A keeper that was killed has no last word: that is known once it is reaped.
        self.look_after_kept();
    }

    /// Children of this process that are not to be killed as somebody's remains.
    fn known(&self) -> Vec<Pid> {
        let keepers = self.kept.values().filter_map(Running::keeper);
        keepers.chain(self.agent).chain([self.speaker.process]).collect()
    }

    /// Who was below a keeper that died is a child of this process now. Nothing of what that kept is over before they are gone.
    fn clear_orphans(&mut self) {
        let now = Mono::now();
        let lost = self.page.keepers_lost();
        if lost != self.lost
            || self
                .kept
                .values()
                .any(|running| running.is_orphaned() && self.orphans.is_none())
        {
            self.lost = lost;
            self.orphans = Some(Orphans::new(now));
        }
        let Some(orphans) = self.orphans.filter(|orphans| now >= orphans.next) else {
            return;
        };
        let mut known = self.known();
        known.extend(self.left.iter().filter_map(Running::keeper));
        self.orphans = orphans.kill(&known, now);
        if self.orphans.is_none() {
            let all = self.kept.values_mut().chain(&mut self.left);
            all.filter(|running| running.is_orphaned())
                .for_each(Running::orphans_are_gone);
            self.look_after_kept();
        }
    }

    fn clear_strays(&mut self) {
        let now = Mono::now();
        let known = self.known();
        let Some(strays) = self.strays.as_mut().filter(|strays| now >= strays.next) else {
            return;
        };
        let cgroups: Vec<String> = self.kept.values().filter_map(Running::cgroup_name).collect();
        if let Some(result) = strays.kill(&known, &cgroups, now) {
            self.strays = None;
            self.learned.push_back(Input::Cleared(result));
        }
    }
}

fn cannot(command: &[String], error: &io::Error) -> String {
    let program = command.first().map_or("", String::as_str);
    format!("cannot run \"{program}\": {error}")
}

/// In memory that stays shared after a fork.
pub(super) fn shared_page() -> io::Result<&'static LeasePage> {
    // SAFETY: a fresh anonymous mapping of at least this size, page-aligned, zeroed (which is a valid page: all atomics), and never
    // unmapped.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            size_of::<LeasePage>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(&*page.cast())
    }
}

/// What this process needs is in memory, and stays there: a disk that hangs must not hold it up. Best effort. What it allocates later
/// is not locked, for a limit would make that fail.
fn lock_memory() {
    // SAFETY: a call without pointers.
    unsafe { libc::mlockall(libc::MCL_CURRENT) };
}

/// A child that has ended, and is not reaped yet: its number cannot pass to another process before that.
fn ended() -> Option<Pid> {
    // SAFETY: all-zero is a valid value of this plain structure, and stands for "nobody"; it outlives the call.
    let id = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let found = libc::waitid(libc::P_ALL, 0, &raw mut info, how) == 0;
        if found { info.si_pid() } else { 0 }
    };
    Pid::from_raw(id)
}

/// The signals that this process hears of.
fn signal_set() -> libc::sigset_t {
    // SAFETY: all-zero is a valid value; sigemptyset initialises it in any case.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGABRT,
            libc::SIGHUP,
            libc::SIGUSR1,
            libc::SIGUSR2,
        ] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Sockets that the service manager has passed stay with this process and its agents (sd_listen_fds(3)).
fn keep_sockets(vault: &Vault) {
    let number = |name: &str| vault.get(name)?.to_str()?.parse::<i32>().ok();
    if number("LISTEN_PID") != Some(rustix::process::getpid().as_raw_nonzero().get()) {
        return;
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MAX_PASSED);
    for fd in FIRST_PASSED..FIRST_PASSED + count {
        // SAFETY: a call without pointers; a descriptor that is not open is an error that harms nobody.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
