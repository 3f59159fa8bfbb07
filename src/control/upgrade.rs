//! Another file for a job: what it would change, and going over to it.

use std::sync::PoisonError;

use super::ControlError;
use super::disk::{Stop, UpgradeStep};
use super::entry::seconds;
use super::file;
use super::manager::{Manager, not_changing};
use super::model::{Desired, Doing, JobState, Settings, StopMode, Upgrade, UpgradeRequest};
use crate::base::failpoint;
use crate::engine;

impl Manager {
    /// Says what another file changes and, unless it is only asked, goes over to it: the job stops with a savepoint and goes on
    /// with the new file from where it stopped. When the new one does not come to run, the job goes back to the old one.
    ///
    /// # Errors
    /// All faults of the file; state that would be lost and is not given up; a job that is being changed.
    pub fn upgrade(
        &self,
        id: &str,
        request: UpgradeRequest,
        dry_run: bool,
        who: &str,
    ) -> Result<Upgrade, ControlError> {
        let entry = self.entry(id)?;
        let record = entry.record();
        let (_, old) = entry.dir.read_file(record.job.version)?;
        let settings = Settings {
            values: request.values.unwrap_or(old.values),
            set: request.set.unwrap_or(old.set),
            workers: request.workers.unwrap_or(old.workers),
            from: old.from,
            until_end: old.until_end,
            allow_drop: request.allow_drop,
        };
        let sound = file::check(&request.file, &settings, &record.directory)?;
        if sound.plan.job != record.job.name {
            return Err(ControlError::Wrong(format!(
                "the file is of job `{}`, and {id} is of job `{}`; submit it as a job of its own",
                sound.plan.job, record.job.name
            )));
        }
        let was = entry.plan();
        let place = was.as_ref().map_or_else(
            |_| sound.plan.checkpoint.place(&entry.dir.state()),
            |plan| plan.checkpoint.place(&entry.dir.state()),
        );
        if let Ok(was) = &was
            && was.checkpoint.uri != sound.plan.checkpoint.uri
        {
            return Err(ControlError::Wrong(
                "the file keeps checkpoints in another place, where there are none to go on from; keep `checkpoint.uri`, or make a savepoint and submit the file with `from`".to_owned(),
            ));
        }
        let saved = match &was {
            Ok(plan) => engine::saved(plan, &entry.dir.state())?,
            Err(_) => None,
        };
        let changes = match saved {
            Some(_) => Some(engine::compare_outline(&sound.plan, &place)?),
            None => None,
        };
        let needs_allow_drop = changes.as_ref().is_some_and(|changes| !changes.lost.is_empty());
        let before = was.ok().and_then(|plan| engine::check(&plan).ok()).unwrap_or_default();
        let mut answer = Upgrade {
            dry_run,
            version: record.newest + 1,
            changes: changes.as_ref().map(file::state_changes),
            needs_allow_drop,
            plan: file::differing_lines(&before, &sound.text),
            warnings: file::faults(&sound.warnings),
            job: record.job.clone(),
        };
        if dry_run {
            return Ok(answer);
        }
        if let Some(changes) = changes.filter(|_| needs_allow_drop && !settings.allow_drop) {
            entry.tell(who, "upgrade", "refused", changes.text());
            return Err(ControlError::Loss(changes));
        }
        let _admitted = self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner);
        if !record.job.state.at_rest() || record.job.desired == Desired::Running {
            self.check_places(&sound.plan, Some(id))?;
        }
        let (to, job) = entry.change(|record| {
            not_changing(record)?;
            if record.job.state == JobState::Stopping || record.job.doing.is_some() {
                return Err(ControlError::Conflict(format!("{id} is being stopped; upgrade it when it is STOPPED")));
            }
            // Numbers of versions whose upgrade was cut short are taken again: nobody has seen them.
            let (from, to) = (record.job.version, record.newest + 1);
            entry.dir.write_file(to, &request.file, &settings)?;
            record.newest = to;
            if record.job.state.at_rest() {
                record.job.version = to;
                record.job.workers = settings.workers;
                if record.job.state == JobState::Failed && record.job.desired == Desired::Running {
                    record.run_again();
                }
            } else {
                record.job.doing = Some(Doing::Upgrade);
                record.upgrade = Some(UpgradeStep { from, to, who: who.to_owned(), started: false });
                let trigger = format!("upgrade-{to}");
                let place = entry.dir.savepoint(&trigger).display().to_string();
                // Without an epoch there is nothing to be saved yet.
                let savepoint = saved.map(|_| (trigger, place));
                record.stop =
                    Some(Stop { mode: StopMode::Checkpoint, savepoint, asked: seconds(), who: who.to_owned() });
            }
            Ok((to, record.job.clone()))
        })?;
        failpoint("control.upgrading");
        let outcome = if job.doing.is_some() { "asked" } else { "done" };
        entry.tell(who, "upgrade", outcome, format!("from version {} to version {to}", record.job.version));
        entry.poke(&self.shared);
        (answer.version, answer.job) = (to, job);
        Ok(answer)
    }
}
