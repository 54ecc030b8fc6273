"use strict";
// Shows the reader's local time, with UTC beside it, and keeps what is marked as live up to date.
// The page works without it.
const language = document.documentElement.lang;
function showLocalTimes(part) {
  const now = new Date();
  for (const time of part.querySelectorAll("time[datetime]")) {
    const shown = time.querySelector("small");
    const moment = new Date(time.dateTime);
    const offset = moment.getTimezoneOffset();
    if (shown && offset) {
      const local = moment.toLocaleString(language, {
        day: "numeric",
        month: "short",
        year: moment.getFullYear() === now.getFullYear() ? undefined : "numeric",
        hour: "numeric",
        minute: "2-digit",
      });
      const isSameDay = moment.getDate() === moment.getUTCDate();
      const utc = isSameDay ? shown.textContent.split(" ").slice(1).join(" ") : shown.textContent;
      shown.textContent = `${local} (${utc})`;
    }
  }
}

const main = document.querySelector("main");
const partsOf = (root) => [...root.querySelectorAll("[data-live]")];
const asSent = new Map(partsOf(main).map((part) => [part.id, part.innerHTML]));
const controlsOf = (part) => [...part.querySelectorAll("a, button, summary")];
const keyOf = (control) => `${control.form?.action} ${control.outerHTML}`;
let etag = "";

// The focus stays on its control, and what is unfolded stays so.
function replace(old, fresh) {
  const focused = controlsOf(old).indexOf(document.activeElement);
  const key = focused < 0 ? "" : keyOf(document.activeElement);
  const unfolded = [...old.querySelectorAll("details")].map((details) => details.open);
  asSent.set(old.id, fresh.innerHTML);
  old.replaceChildren(...fresh.childNodes);
  old.setAttribute("aria-busy", fresh.getAttribute("aria-busy") ?? "false");
  showLocalTimes(old);
  [...old.querySelectorAll("details")].forEach((details, n) => (details.open = unfolded[n] ?? false));
  if (focused >= 0) {
    const controls = controlsOf(old);
    const control = controls.find((each) => keyOf(each) === key) ?? controls[focused] ?? main;
    control.focus({ preventScroll: true });
  }
}

async function poll() {
  const headers = { "Seline-Poll": "1", "If-None-Match": etag };
  const response = await fetch(location.href, { headers, cache: "no-store" });
  if (response.status === 304 || response.status >= 500) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  const parts = partsOf(fresh);
  const isOther = parts.length !== asSent.size || !parts.every((part) => asSent.has(part.id));
  if (!response.ok || response.redirected || isOther) {
    location.reload();
    return;
  }
  etag = response.headers.get("ETag") ?? "";
  for (const part of parts)
    if (part.innerHTML !== asSent.get(part.id)) replace(document.getElementById(part.id), part);
  main.dataset.poll = fresh.querySelector("main").dataset.poll ?? "";
}

function pollLater() {
  if (!main.dataset.poll) return;
  setTimeout(async () => {
    try {
      if (!document.hidden) await poll();
    } catch {
      // The server does not answer: the next poll may.
    }
    pollLater();
  }, Number(main.dataset.poll) * 1000);
}

showLocalTimes(document);
if (asSent.size) pollLater();
