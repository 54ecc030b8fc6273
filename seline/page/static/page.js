"use strict";
// Shows the reader's local time, with UTC beside it. Nothing else needs a script.
const language = document.documentElement.lang;
const now = new Date();
for (const time of document.querySelectorAll("time[datetime]")) {
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
