"use strict";
// Adds the reader's local time beside UTC. Nothing else needs a script.
for (const time of document.querySelectorAll("time[datetime]")) {
  const moment = new Date(time.dateTime);
  if (!Number.isNaN(moment.valueOf()) && moment.getTimezoneOffset() !== 0) {
    const local = moment.toLocaleString(document.documentElement.lang, {
      dateStyle: "medium",
      timeStyle: "short",
    });
    const shown = document.createElement("small");
    shown.textContent = `${local} · `;
    time.insertBefore(shown, time.querySelector("small"));
  }
}
