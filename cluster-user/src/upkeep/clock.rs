//! The clock on the wall, and what is due by it. It can be set, both ways, while somebody waits for it.

use std::time::{Duration, SystemTime};

use tokio::{sync::mpsc, task::AbortHandle, time::sleep};

use super::News;
use crate::{config::cron::Schedule, id::AppId};

/// How often it is looked at, at least. Waiting is done by another clock, which does not know that this one was set, and
/// which stands still while the host sleeps.
const LOOK: Duration = Duration::from_secs(30);

/// A clock that goes back by less than this is being adjusted; by more, it is set.
const SET_BACK: Duration = Duration::from_mins(1);

/// Brings [`News::Due`] whenever a time has come, until the task is aborted. To be called inside a tokio runtime.
pub fn follow(app: AppId, schedule: Schedule, news: mpsc::Sender<News>) -> AbortHandle {
    let follow = async move {
        let mut clock = Clock::new(schedule, SystemTime::now());
        loop {
            match clock.look(SystemTime::now()) {
                Look::Due => {
                    // The loop has ended when nobody hears it.
                    if news.send(News::Due { app }).await.is_err() {
                        return;
                    }
                }
                Look::Wait(time) => sleep(time).await,
                Look::Never => return,
            }
        }
    };
    tokio::spawn(follow).abort_handle()
}

/// A schedule, and the next time of it.
#[derive(Debug)]
struct Clock {
    schedule: Schedule,
    /// `None` when there is no other.
    next: Option<SystemTime>,
    last_look: SystemTime,
}

/// What the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// A time has come, or several have in one jump of the clock.
    Due,
    /// It has not; look again after this long.
    Wait(Duration),
    /// None will come.
    Never,
}

impl Clock {
    fn new(schedule: Schedule, now: SystemTime) -> Self {
        let next = schedule.after(now).ok();
        Self { schedule, next, last_look: now }
    }

    fn look(&mut self, now: SystemTime) -> Look {
        let back = self.last_look.duration_since(now).unwrap_or_default();
        self.last_look = now;
        if back > SET_BACK {
            // Times that come a second time count a second time: the old ones were those of another clock.
            self.next = self.schedule.after(now).ok();
        }
        let Some(next) = self.next else { return Look::Never };
        match next.duration_since(now) {
            Ok(left) if !left.is_zero() => Look::Wait(left.min(LOOK)),
            Ok(_) | Err(_) => {
                self.next = self.schedule.after(now).ok();
                Look::Due
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cron::Cron;

    #[test]
    fn a_time_comes_once_however_the_clock_goes() {
        let mut now = time("2026-11-21T02:59:50Z");
        let mut clock = clock("0 3 * * *", now);
        assert_eq!(clock.look(now), Look::Wait(Duration::from_secs(10)));
        now += Duration::from_secs(10);
        assert_eq!(clock.look(now), Look::Due);
        assert_eq!(clock.look(now), Look::Wait(LOOK));
        // Adjusted by a little, to before the time that has just come.
        now -= Duration::from_secs(5);
        assert_eq!(clock.look(now), Look::Wait(LOOK));
        // Set to almost three days later.
        now += Duration::from_hours(71);
        assert_eq!(clock.look(now), Look::Due);
        assert_eq!(clock.look(now), Look::Wait(LOOK));
        // And back again.
        now -= Duration::from_hours(48);
        assert_eq!(clock.look(now), Look::Wait(LOOK));
        now = time("2026-11-22T02:59:59Z");
        assert_eq!(clock.look(now), Look::Wait(Duration::from_secs(1)));
        now += Duration::from_secs(1);
        assert_eq!(clock.look(now), Look::Due);
    }

    #[tokio::test]
    async fn a_line_with_seconds_comes_each_second() {
        let (sender, mut news) = mpsc::channel(1);
        let schedule = "* * * * * *".parse::<Cron>().unwrap().schedule().unwrap();
        let following = follow(AppId(3), schedule, sender);
        let began = std::time::Instant::now();
        for _ in 0..2 {
            assert_eq!(news.recv().await, Some(News::Due { app: AppId(3) }));
        }
        assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
        following.abort();
        assert_eq!(news.recv().await, None);
    }

    fn clock(line: &str, now: SystemTime) -> Clock {
        Clock::new(Cron::new(line, Some("UTC")).unwrap().schedule().unwrap(), now)
    }

    fn time(text: &str) -> SystemTime {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }
}
