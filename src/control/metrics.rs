//! What the server tells of its jobs in metrics. What a job tells of itself is its own: `/api/v1/jobs/{id}/metrics`.

use super::Manager;
use super::model::JobState;
use crate::telemetry::{Collector, Description, Kind, Metrics};

const JOBS: Description = Description {
    name: "tidemill_jobs",
    kind: Kind::Gauge,
    unit: "",
    help: "Jobs that the server keeps, by what they do.",
};

const RUNNING: Description = Description {
    name: "tidemill_job_running",
    kind: Kind::Gauge,
    unit: "",
    help: "Whether a job that is wanted to run does: 1 or 0; absent for jobs that are at rest as wanted.",
};

const RESTARTS: Description = Description {
    name: "tidemill_job_restarts",
    kind: Kind::Gauge,
    unit: "",
    help: "How often a job was started again because it had died, since somebody last started it.",
};

const STATES: [JobState; 7] = [
    JobState::Starting,
    JobState::Running,
    JobState::Stopping,
    JobState::Stopped,
    JobState::Finished,
    JobState::Restarting,
    JobState::Failed,
];

impl Collector for Manager {
    fn collect(&self, metrics: &mut Metrics) {
        let jobs = self.list();
        for state in STATES {
            let count = jobs.iter().filter(|job| job.state == state).count();
            metrics.add(&JOBS, &[("state", state.name())], count as f64);
        }
        for job in &jobs {
            if job.desired == super::model::Desired::Running {
                let running = job.state == JobState::Running;
                metrics.add(&RUNNING, &[("job", &job.id)], f64::from(u8::from(running)));
            }
            metrics.add(&RESTARTS, &[("job", &job.id)], job.restarts as f64);
        }
    }
}
