//! A round: people ask, faults strike at their moments and are mended; then, in clear weather, everything must come right.

use crate::ask::{Asking, End, Wanted};
use crate::inspect::{self, CLEARED, Mails};
use crate::plan::{Fault, Manner, Strike, Weather, Who};
use crate::tally::Tally;
use crate::yard::{Yard, eventually, words_of};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What happens at a moment.
#[derive(Clone, Copy, Debug)]
enum Move {
    Ask(usize),
    Strike(usize),
    Mend(usize),
}

/// A round under way.
struct Round<'a> {
    yard: &'a mut Yard,
    weather: &'a Weather,
    wanted: Vec<Wanted>,
    asked: Vec<Asking>,
    began: Instant,
    story: &'a mut Vec<String>,
    tally: &'a mut Tally,
}

/// Carries a round out and looks at what came of it.
pub(crate) fn carry_out(
    yard: &mut Yard,
    weather: &Weather,
    story: &mut Vec<String>,
    tally: &mut Tally,
) -> Result<(), String> {
    tally.rounds += 1;
    let shared: BTreeSet<usize> = weather.wishes.iter().map(|wish| wish.build).collect();
    tally.shared += u64::from(shared.len() < weather.wishes.len());
    let folder = yard.farm.folder().to_owned();
    let wanted: Vec<Wanted> = weather
        .builds
        .iter()
        .enumerate()
        .map(|(nr, build)| {
            let word = format!("p{}-r{}-b{nr}-f{}", std::process::id(), weather.round, tally.farms);
            Wanted::prepare(build, format!("{word}-{}", folder_word(&folder)), &folder)
        })
        .collect();
    let began = Instant::now();
    let mut round = Round { yard, weather, wanted, asked: Vec::new(), began, story, tally };
    round.storm()?;
    round.clear()?;
    let mails = round.settle()?;
    inspect::after_round(round.yard, &mails, &round.wanted, round.tally)
}

/// What tells a farm's folder from others, as a word of an option.
fn folder_word(folder: &std::path::Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.rsplit('-').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect()
}

impl Round<'_> {
    fn tell(&mut self, what: &str) {
        self.story.push(format!("{:8.3} s  {what}", self.began.elapsed().as_secs_f64()));
    }

    /// Everything at its moment, until the last fault is mended.
    fn storm(&mut self) -> Result<(), String> {
        let mut moves: Vec<(Duration, Move)> = Vec::new();
        moves.extend(self.weather.wishes.iter().enumerate().map(|(nr, wish)| (wish.at, Move::Ask(nr))));
        for (nr, strike) in self.weather.strikes.iter().enumerate() {
            moves.extend([(strike.at, Move::Strike(nr)), (strike.at + strike.lasts, Move::Mend(nr))]);
        }
        moves.sort_by_key(|(at, _)| *at);
        for (at, next) in moves {
            std::thread::sleep(at.saturating_sub(self.began.elapsed()));
            match next {
                Move::Ask(nr) => self.ask(nr),
                Move::Strike(nr) => self.strike(&self.weather.strikes[nr].clone())?,
                Move::Mend(nr) => self.mend(&self.weather.strikes[nr].clone())?,
            }
        }
        Ok(())
    }

    fn ask(&mut self, nr: usize) {
        let wish = &self.weather.wishes[nr];
        let wanted = &self.wanted[wish.build];
        self.tell(&format!("requester {} asks for {}: {wish:?}", wish.asker, wanted.word()));
        let asking = self.yard.askers[wish.asker].ask(wish, &self.wanted[wish.build]);
        self.asked.push(asking);
    }

    fn strike(&mut self, strike: &Strike) -> Result<(), String> {
        let hit = match strike.whom {
            Who::Asker(nr) => self.strike_asker(nr, strike.fault),
            who => {
                let machine = self.yard.machine(who).ok_or_else(|| format!("there is no {who}"))?;
                match strike.fault {
                    Fault::Kill => machine.kill()?,
                    Fault::Halt => machine.signal(Signal::STOP)?,
                    Fault::FullDisk => machine.fill_disk(),
                    Fault::Shift(by_s) => machine.set_clock(by_s),
                    Fault::WakeAt(by_s) => {
                        machine.kill()?;
                        machine.set_clock(by_s);
                        machine.start();
                    }
                }
                true
            }
        };
        if hit {
            self.tally.struck(strike);
        }
        let missed = if hit { "" } else { " (nothing was there any more)" };
        self.tell(&format!("{strike}{missed}"));
        Ok(())
    }

    fn strike_asker(&mut self, nr: usize, fault: Fault) -> bool {
        let asker = &self.yard.askers[nr];
        let mut asked = self.asked.iter_mut().filter(|asking| asking.wish.asker == nr);
        match fault {
            Fault::Kill => asked.any(Asking::kill),
            Fault::Halt => asked.any(|asking| asking.signal(Signal::STOP)),
            Fault::FullDisk => {
                asker.disk.fill();
                true
            }
            Fault::Shift(by_s) | Fault::WakeAt(by_s) => asker.clock.as_ref().is_some_and(|clock| {
                clock.set(by_s);
                true
            }),
        }
    }

    fn mend(&mut self, strike: &Strike) -> Result<(), String> {
        match (strike.whom, strike.fault) {
            (Who::Asker(_), Fault::Kill) => return Ok(()),
            (Who::Asker(nr), Fault::Halt) => {
                self.asked.iter_mut().filter(|asking| asking.wish.asker == nr).for_each(|asking| {
                    asking.signal(Signal::CONT);
                });
            }
            (Who::Asker(nr), Fault::FullDisk) => self.yard.askers[nr].disk.free(),
            (Who::Asker(nr), Fault::Shift(_) | Fault::WakeAt(_)) => {
                if let Some(clock) = &self.yard.askers[nr].clock {
                    clock.set(0);
                }
            }
            (who, fault) => {
                let machine = self.yard.machine(who).ok_or_else(|| format!("there is no {who}"))?;
                match fault {
                    Fault::Kill => machine.start(),
                    Fault::Halt => machine.signal(Signal::CONT)?,
                    Fault::FullDisk => machine.free_disk(),
                    Fault::Shift(_) | Fault::WakeAt(_) => machine.set_clock(0),
                }
            }
        }
        self.tell(&format!("mended: {strike}"));
        Ok(())
    }

    /// Waits until all daemons serve and all commands have ended.
    fn clear(&mut self) -> Result<(), String> {
        self.yard.all_serve()?;
        self.yard.machines.iter_mut().for_each(crate::machine::Machine::excuse_ends);
        self.tell("every daemon serves");
        for asking in &mut self.asked {
            let who = Who::Asker(asking.wish.asker);
            eventually("the end of a command", CLEARED, || match asking.is_under_way() {
                true => Err(format!("the command of {who} goes on")),
                false => Ok(()),
            })?;
        }
        self.tell("every command has ended");
        Ok(())
    }

    /// Looks at every request to its end, and brings whoever has not got it yet what was asked for.
    fn settle(&mut self) -> Result<Mails, String> {
        // By build key: attempts, and how many there had to be.
        let (mut mails, mut attempts) = (Mails::default(), BTreeMap::<String, (u64, u64)>::new());
        for at in 0..self.asked.len() {
            let Asking { wish, output, address, .. } = &self.asked[at];
            let (wish, output, address) = (wish.clone(), output.clone(), address.clone());
            let wanted = self.wanted[wish.build].clone();
            let who = format!("requester {}, {}", wish.asker, wanted.word());
            self.is_a_fair_end(at).map_err(|because| format!("{who}: {because}"))?;
            let request = self.asked[at].acknowledged();
            let mut outcome = None;
            match &request {
                Some(request) => {
                    self.tally.acknowledged += 1;
                    self.tally.agreed += u64::from(wish.agree > 1);
                    let end = eventually("the end of a request", CLEARED, || {
                        let status = self.yard.look(&["status", request])?;
                        if status["state"] == "finished" { Ok(status) } else { Err(status.to_string()) }
                    })?;
                    let key = end["build_key"].as_str().unwrap_or_default().to_owned();
                    let (made, needed) = attempts.entry(key).or_default();
                    *made = (*made).max(end["attempts"].as_u64().unwrap_or(0));
                    *needed = (*needed).max(wish.agree);
                    outcome = end["outcome"].as_str().map(str::to_owned);
                    self.tell(&format!("{who}: {end}"));
                }
                None => self.tally.unheard += 1,
            }
            mails.expect(address, request.as_deref());
            if wanted.is_in(&output) {
                self.forget(&output)?;
                continue;
            }
            if let (Manner::Waits, Some(End::Ran(ran))) = (wish.manner, &self.asked[at].end)
                && ran.code == Some(0)
            {
                return Err(format!(
                    "{who}: the command says it is done, and the files are not right: {}",
                    words_of(ran)
                ));
            }
            let words = match (&request, outcome.as_deref()) {
                (Some(request), Some("built" | "cached")) => {
                    vec!["fetch".to_owned(), request.clone(), "--output".to_owned(), output.display().to_string()]
                }
                (Some(_), Some("infrastructure")) => {
                    self.tally.gave_up += 1;
                    wanted.request(Some(&output))
                }
                (Some(_), other) => return Err(format!("{who}: it ended as {other:?}")),
                (None, _) => wanted.request(Some(&output)),
            };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ran = self.yard.command_of(wish.asker, &words);
            self.tell(&format!("{who}: {} {}", words[0], words_of(&ran)));
            if ran.code != Some(0) || !wanted.is_in(&output) {
                return Err(format!("{who}: `{}` brings nothing or the wrong thing: {}", words[0], words_of(&ran)));
            }
            self.forget(&output)?;
        }
        self.tally.attempts_lost += attempts.values().map(|(made, needed)| made.saturating_sub(*needed)).sum::<u64>();
        mails.keys = attempts.into_keys().collect();
        mails.resent = match self
            .weather
            .strikes
            .iter()
            .any(|strike| strike.whom == Who::Coordinator && matches!(strike.fault, Fault::Kill | Fault::WakeAt(_)))
        {
            true => inspect::Resent::Possibly,
            false => inspect::Resent::Never,
        };
        Ok(mails)
    }

    fn forget(&self, output: &std::path::Path) -> Result<(), String> {
        std::fs::remove_dir_all(output).map_err(|error| format!("{}: {error}", output.display()))
    }

    /// Whether a command ended in a way that what befell it explains.
    fn is_a_fair_end(&self, at: usize) -> Result<(), String> {
        let asking = &self.asked[at];
        let Some(End::Ran(ran)) = &asking.end else { return Ok(()) };
        let struck = |who: Who| self.weather.strikes.iter().any(|strike| strike.whom == who);
        let (asker, full) = (Who::Asker(asking.wish.asker), Fault::FullDisk);
        let has_no_room = self.weather.strikes.iter().any(|strike| strike.whom == asker && strike.fault == full);
        let clocks =
            self.weather.strikes.iter().any(|strike| matches!(strike.fault, Fault::Shift(_) | Fault::WakeAt(_)));
        let fair = match ran.code {
            Some(0) => true,
            // Asked for nothing: the files could not have been taken.
            Some(2) => has_no_room,
            Some(3) => struck(Who::Coordinator) || struck(asker),
            Some(4) => clocks,
            Some(5) => true,
            _ => false,
        };
        if !fair || ran.stderr.contains("panicked") {
            return Err(format!("the command {}", words_of(ran)));
        }
        Ok(())
    }
}
