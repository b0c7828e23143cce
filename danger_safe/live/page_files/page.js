// Asks every second for what is heard, and shows it. All words come from the server.
"use strict";

const EVERY_MS = 1000;
const find = (selector, within = document) => within.querySelector(selector);
const token = find("meta[name=token]").content;
const title = document.title;
const cards = new Map(); // event id -> its card
let version = "";
let timer = 0;

function write(element, text) {
  if (element.textContent !== text) element.textContent = text; // an unchanged text is not read out again
}

function fraction(value) {
  return `${100 * Math.min(1, Math.max(0, value ?? 0))}%`;
}

function showSource(card, source) {
  card.classList.toggle("danger", source.danger);
  write(find(".state", card), source.state);
  write(find(".level-text", card), source.levelText);
  write(find(".score-text", card), source.scoreText);
  find(".level .fill", card).style.setProperty("--part", fraction(source.level));
  find(".score .fill", card).style.setProperty("--part", fraction(source.score));
  if (source.threshold !== null) find(".mark", card).style.setProperty("--mark", fraction(source.threshold));
  const tags = find(".tags", card);
  write(tags, source.tags.join(", ") || tags.dataset.none);
  if (source.tags.length) tags.lang = "en"; else tags.removeAttribute("lang"); // AudioSet's names are English
  write(find(".why", card), source.why);
}

function newCard(event) {
  const card = find("#event").content.firstElementChild.cloneNode(true);
  const path = encodeURIComponent(event.id);
  const picture = find(".picture", card);
  picture.addEventListener("error", () => { picture.hidden = true; });
  for (const button of card.querySelectorAll("button")) {
    button.addEventListener("click", () => judge(event.id, card, button));
  }
  card.dataset.path = path;
  return card;
}

function showEvent(card, event) {
  card.classList.toggle("alarm", event.alarm);
  find(".verdict", card).setAttribute("aria-label", event.title);
  write(find(".category", card), `${event.category} ${event.score}`);
  write(find(".what", card), event.what);
  write(find(".source-name", card), event.source);
  const time = find("time", card);
  time.dateTime = event.iso;
  write(time, event.time);
  write(find(".length", card), event.length);
  const picture = find(".picture", card);
  picture.alt = `${event.title}. ${event.picture}`;
  const address = `/picture/${card.dataset.path}?of=${event.drawn}`; // another picture when the sound has come
  if (event.drawn && picture.getAttribute("src") !== address) {
    picture.hidden = false; // what is hidden is not loaded lazily
    picture.src = address;
  }
  const audio = find("audio", card);
  if (event.sound && !audio.src) audio.src = `/sound/${card.dataset.path}`;
  audio.hidden = !event.sound;
  find(".no-sound", card).hidden = event.sound;
  find("[data-verdict=right]", card).setAttribute("aria-pressed", event.right);
  find("[data-verdict=false_alarm]", card).setAttribute("aria-pressed", event.false);
}

function showEvents(events) {
  const list = find("#events");
  const ids = new Set(events.map((event) => event.id));
  for (const [id, card] of cards) {
    if (!ids.has(id)) {
      card.remove();
      cards.delete(id);
    }
  }
  let before = null;
  for (const event of events) {
    if (!cards.has(event.id)) {
      const card = newCard(event);
      cards.set(event.id, card);
      list.insertBefore(card, before ? before.nextSibling : list.firstChild); // the others stay where they are: they may play
    }
    before = cards.get(event.id);
    showEvent(before, event);
  }
  find("#no-events").hidden = events.length > 0;
  find("#pictures").hidden = events.length === 0;
}

function show(state) {
  const all = document.querySelectorAll(".source");
  state.sources.forEach((source, number) => showSource(all[number], source));
  const alarm = find("#alarm");
  alarm.classList.toggle("danger", state.danger);
  write(alarm, state.alarm);
  write(find("#learnt"), state.learnt);
  document.title = state.danger ? `⚠ ${state.alarm}` : title;
  if (state.events) {
    version = state.version;
    showEvents(state.events);
  }
}

function setOffline(isOffline) {
  const line = find("#offline");
  write(line, isOffline ? line.dataset.text : "");
  document.body.classList.toggle("old", isOffline);
}

async function update() {
  clearTimeout(timer);
  try {
    const answer = await fetch(`/state?seen=${version}`, { signal: AbortSignal.timeout(10 * EVERY_MS) });
    if (answer.status === 401) {
      location.reload(); // the login has ended
      return;
    }
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.json());
    setOffline(false);
  } catch {
    setOffline(true);
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(update, EVERY_MS);
}

async function judge(id, card, button) {
  const said = find(".said", card);
  const verdict = button.getAttribute("aria-pressed") === "true" ? "none" : button.dataset.verdict;
  try {
    const answer = await fetch("/verdict", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Token": token },
      body: JSON.stringify({ event: id, verdict }),
    });
    if (answer.status === 401 || answer.status === 403) {
      location.reload(); // listen.py was started anew since
      return;
    }
    if (!answer.ok) {
      const problem = answer.status === 507 ? (await answer.json()).problem : said.dataset.failed;
      write(said, problem);
      return;
    }
    for (const other of card.querySelectorAll("button")) {
      other.setAttribute("aria-pressed", other.dataset.verdict === verdict);
    }
    write(said, verdict === "none" ? said.dataset.none : said.dataset.saved);
  } catch {
    write(said, said.dataset.failed);
  }
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
update();
