// The fleet's page: what /fleet/live tells each second, as text. Nothing received is ever markup.
"use strict";
const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const verdicts = ["critical", "unknown", "warning"];

function fill(id, rows, empty) {
  const body = byId(id).tBodies[0];
  const columns = byId(id).tHead.rows[0].cells;
  body.replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    cells.forEach((cell, at) => {
      const shown = document.createElement("td");
      // On a narrow screen a row becomes lines, each with its column's name.
      shown.dataset.label = columns[at].textContent;
      const isNumber = columns[at].className === "number";
      if (isNumber) shown.className = "number";
      shown.textContent = cell === null ? "" : isNumber ? number.format(Math.round(cell * 10) / 10) : cell;
      if (verdicts.includes(cell)) shown.className = cell;
      if (at === 0) shown.className = "name";
      row.append(shown);
    });
    return row;
  }));
  if (rows.length === 0) {
    const shown = document.createElement("td");
    shown.colSpan = columns.length;
    shown.textContent = empty;
    shown.className = "empty";
    body.insertRow().append(shown);
  }
}

function show(told) {
  byId("verdict").textContent = told.verdict;
  byId("verdict").className = told.verdict;
  byId("count").textContent = number.format(told.nodes);
  byId("silent").textContent = told.silent === 0 ? "" : `, ${number.format(told.silent)} without an answer`;
  byId("note").textContent = told.note;
  fill("nodes", told.rows, "none");
  fill("shards", told.shards, "no gateway with [cluster] in its gateway.toml");
  fill("findings", told.findings, told.nodes === 0 || told.silent > 0 ? "none from those that answered" : "none");
}

const source = new EventSource("/fleet/live");
source.onmessage = (event) => show(JSON.parse(event.data));
source.onerror = () => { byId("note").textContent = "no connection to keepstate serve; trying again"; };
