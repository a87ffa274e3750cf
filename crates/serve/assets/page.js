// The page: what /live tells each second, as text. Nothing received is ever markup.
"use strict";
const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
const mark = () => getComputedStyle(document.documentElement).getPropertyValue("--mark").trim();
let chart = null;
const ago = (second) => second === 0 ? "now" : second % 60 ? `${second} s` : `${second / 60} min`;

function fill(id, rows, empty = "none") {
  const body = byId(id).tBodies[0];
  body.replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const shown = document.createElement("td");
      const isNumber = typeof cell === "number";
      shown.textContent = isNumber ? number.format(Math.round(cell * 10) / 10) : cell;
      if (isNumber) shown.className = "number";
      if (cell === "critical") shown.className = "critical";
      row.append(shown);
    }
    return row;
  }));
  if (rows.length === 0) {
    const shown = document.createElement("td");
    shown.colSpan = byId(id).tHead.rows[0].cells.length;
    shown.textContent = empty;
    shown.className = "empty";
    body.insertRow().append(shown);
  }
}

function draw(times, entries) {
  const place = byId("chart");
  const size = { width: place.clientWidth, height: 180 };
  if (chart === null) {
    const axis = { stroke: ink, grid: { stroke: "#8884" }, ticks: { stroke: "#8884" } };
    const seconds = { ...axis, incrs: [10, 30, 60, 120, 300], values: (_, at) => at.map(ago) };
    const series = [{}, { stroke: mark, fill: "#0b6bcb33", width: 2, points: { show: false } }];
    chart = new uPlot({ ...size, series, axes: [seconds, { ...axis, size: 55, values: (_, at) => at.map((size) => compact.format(size)) }], legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, Math.max(high * 1.1, 1)] } } }, [times, entries], place);
    addEventListener("resize", () => chart.setSize({ width: place.clientWidth, height: 180 }));
  } else {
    chart.setData([times, entries]);
  }
}

function say(note, isBad) {
  byId("note").textContent = note;
  byId("note").className = isBad ? "bad" : "";
}

function show(told) {
  byId("entries").textContent = number.format(told.entries);
  byId("limit").textContent = told.limit === null ? "unknown" : number.format(told.limit);
  byId("full").textContent = told.full;
  byId("new").textContent = number.format(Math.round(told.new_per_second));
  byId("ended").textContent = number.format(Math.round(told.ended_per_second));
  say(told.note, told.is_stale);
  for (const id of ["states", "sources", "services", "outside", "containers", "namespaces", "counters", "flows"]) fill(id, told[id]);
  fill("findings", told.findings, told.is_diagnosed ? "nothing is wrong, as far as doctor sees" : "doctor has not run yet");
  draw(told.times, told.sizes);
}

const source = new EventSource("/live");
source.onmessage = (event) => show(JSON.parse(event.data));
source.onerror = () => say("no connection to keepstate serve; trying again", true);
