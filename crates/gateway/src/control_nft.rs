//! `keepstate control nft`: scripts of nft's commands on the ruleset in use, and listings of it.
//!
//! All that takes long (parsing, compiling, writing a listing) is done by the client's thread. The main loop hands out the ruleset's names, which are shared,
//! exchanges the program between two packets, and copies sets in pieces.
use super::cluster::ClusterHandle;
use super::control_protocol::{IncludedText, NftRequest, NftScript, write_reply_line, write_reply_line_with};
use super::jobs::{JobCtx, JobSender};
use super::system_names;
use anyhow::{Context, Result, anyhow, bail};
use keepstate_engine::Instant;
use keepstate_rules::ast::Query;
use keepstate_rules::{
    IncludeResolver, ListOptions, ListedCounts, RulesetSnapshot, RulesetUpdateError, RunningRuleset, json_to_script,
};
use std::borrow::Cow;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// The longest script with its includes, in bytes.
const MAX_SCRIPT_LEN: usize = 64 << 20;
/// How often a script is prepared anew because another one was faster.
const MAX_ATTEMPTS: usize = 100;
/// Elements of sets that one job copies.
const ELEMENTS_PER_JOB: usize = 2048;

/// Carries out a request, and writes the answer. A gateway of a cluster takes no `masquerade`, and of several shards no `snat to` an address of none.
pub(super) fn serve(
    request: &NftRequest,
    mut stream: &UnixStream,
    jobs: &JobSender,
    cluster: Option<&ClusterHandle>,
) -> Result<()> {
    let answer = read_script(request, stream).and_then(|script| run(request, &script, jobs, cluster));
    let (answer, error) = match answer {
        Ok(answer) => (answer, None),
        Err(error) => (Answer::default(), Some(format!("{error:#}"))),
    };
    let Answer { text, notes } = answer;
    write_reply_line_with(&mut stream, error, notes)?;
    Ok(stream.write_all(text.as_bytes())?)
}

/// The answer to a script that was carried out.
#[derive(Default)]
struct Answer {
    /// What it asked to list.
    text: String,
    notes: Vec<String>,
}

fn read_script(request: &NftRequest, mut stream: &UnixStream) -> Result<NftScript> {
    let Some(length) = request.length else { return Ok(request.script.clone().unwrap_or_default()) };
    if length > MAX_SCRIPT_LEN {
        bail!("the script is too long: {length} bytes, at most {MAX_SCRIPT_LEN}; send it in parts");
    }
    let mut bytes = Vec::new();
    Read::take(&mut stream, length as u64).read_to_end(&mut bytes).context("reading the script")?;
    if bytes.len() < length {
        bail!("the script ended after {} of {length} bytes", bytes.len());
    }
    serde_json::from_slice(&bytes).context("invalid script: JSON with name, text and includes is expected")
}

fn run(request: &NftRequest, script: &NftScript, jobs: &JobSender, cluster: Option<&ClusterHandle>) -> Result<Answer> {
    let mut text = Cow::Borrowed(script.text.as_str());
    if request.json && text.trim_start().starts_with('{') {
        let commands =
            json_to_script(&text).map_err(|error| anyhow!("nothing was changed\n{}: {error}", script.name))?;
        text = Cow::Owned(commands);
    }
    for _ in 0..MAX_ATTEMPTS {
        let (running, now): (RunningRuleset, Instant) =
            jobs.run(|at: &mut JobCtx<'_>| (at.router.program().ruleset(), at.now))?;
        let prepared = running.prepare_script((&script.name, &text), &SentIncludes(&script.includes), now);
        let update = match prepared {
            Ok(update) => update,
            Err(refused) => bail!("nothing was changed\n{refused}"),
        };
        if let Some(cluster) = cluster {
            let assigned = cluster.assigned_addresses();
            let refused = update.refuse_masquerade().and_then(|()| match assigned {
                Some(addresses) => update.refuse_unassigned_sources(addresses),
                None => Ok(()),
            });
            if let Err(refused) = refused {
                bail!("nothing was changed\n{refused}");
            }
        }
        if request.check {
            return Ok(Answer { notes: update.notes, ..Answer::default() });
        }
        let (queries, added, notes) = (update.queries.clone(), update.added.clone(), update.notes.clone());
        // The old program is dropped here, not between two packets.
        match jobs.run(move |at: &mut JobCtx<'_>| at.router.update_program(update, at.now))? {
            Ok(_old) => (),
            Err(RulesetUpdateError::Outdated) => continue,
            Err(RulesetUpdateError::Refused(refused)) => bail!("nothing was changed\n{refused}"),
        }
        let options = ListOptions { handles: request.handles, terse: request.terse, stateless: request.stateless };
        let mut out = String::new();
        if request.echo && !added.is_empty() {
            let state = snapshot(&[], jobs)?;
            out = match request.json {
                true => state.list_added_json(&added, options).map_err(|error| anyhow!("{error}"))?,
                false => state.list_added(&added, options),
            };
        }
        if !queries.is_empty() {
            let state = snapshot(&queries, jobs)?;
            if request.json {
                let listed = state.list_json(&queries, options);
                out.push_str(&listed.map_err(|missing| anyhow!("{}: {missing}", script.name))?);
            }
            for query in queries.iter().filter(|_| !request.json) {
                let listed = state.list(query, options);
                out.push_str(&listed.map_err(|missing| anyhow!("{}: {missing}", script.name))?);
            }
        }
        return Ok(Answer { text: out, notes });
    }
    bail!("the ruleset is being changed all the time by others; retry later")
}

/// Writes the whole ruleset with its counters, as `nft list ruleset` does.
pub(super) fn list_ruleset(mut stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let query = Query::default();
    let state = snapshot(std::slice::from_ref(&query), jobs)?;
    let text = state.list(&query, ListOptions::default()).map_err(anyhow::Error::msg)?;
    write_reply_line(&mut stream, None)?;
    Ok(stream.write_all(text.as_bytes())?)
}

/// The state of the ruleset for these queries, copied in pieces. What counters and quotas that are reset had counted is taken from them afterwards, so that what packets count meanwhile stays.
fn snapshot(queries: &[Query], jobs: &JobSender) -> Result<RulesetSnapshot> {
    for _ in 0..MAX_ATTEMPTS {
        let wanted = queries.to_vec();
        let mut state = jobs.run(move |at: &mut JobCtx<'_>| at.router.program().start_snapshot(&wanted, at.now))?;
        loop {
            let wanted = queries.to_vec();
            let (same, complete) = jobs.run(move |at: &mut JobCtx<'_>| {
                let complete = at.router.program().continue_snapshot(&mut state, ELEMENTS_PER_JOB);
                if complete == Some(true) {
                    at.router.take_counts(&wanted, &state);
                }
                (state, complete)
            })?;
            state = same;
            match complete {
                Some(true) => {
                    take_element_counts(state.listed_counts(queries), jobs)?;
                    return Ok(state);
                }
                Some(false) => (),
                None => break,
            }
        }
    }
    bail!("the ruleset is being changed all the time by others; retry later")
}

/// Takes from elements of sets what was listed of them, in pieces.
fn take_element_counts(mut listed: ListedCounts, jobs: &JobSender) -> Result<()> {
    loop {
        let (rest, done) = jobs.run(move |at: &mut JobCtx<'_>| {
            let done = at.router.take_element_counts(&mut listed, ELEMENTS_PER_JOB);
            (listed, done)
        })?;
        if done {
            return Ok(());
        }
        listed = rest;
    }
}

/// The texts that came with the script.
struct SentIncludes<'a>(&'a [IncludedText]);

impl IncludeResolver for SentIncludes<'_> {
    fn resolve(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
        let found = self.0.iter().find(|one| one.pattern == pattern && one.from == from);
        found.map(|one| one.files.clone()).ok_or_else(|| "it was not sent with the script".to_owned())
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        system_names::user_id(name)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        system_names::group_id(name)
    }

    fn ct_label(&self, name: &str) -> Option<u32> {
        system_names::ct_label(name)
    }
}
