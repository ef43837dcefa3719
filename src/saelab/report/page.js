"use strict";
// Without this script the page shows everything at once; with it, seeds open and one latent is shown at a time.
(() => {
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  document.documentElement.classList.add("js");

  for (const button of all("button.toggle")) {
    button.addEventListener("click", () => {
      const open = document.getElementById(`seeds-${button.dataset.seeds}`).classList.toggle("open");
      button.setAttribute("aria-expanded", String(open));
    });
  }

  const select = document.getElementById("run-select");
  if (!select) return;
  const current = () => document.querySelector(".run-latents.open");

  const showLatent = (chip) => {
    for (const card of all(".latent.open")) card.classList.remove("open");
    for (const other of all(".chip", current())) other.setAttribute("aria-pressed", String(other === chip));
    if (chip) document.getElementById(`latent-${chip.dataset.latent}`).classList.add("open");
  };
  const showRun = () => {
    for (const run of all(".run-latents")) run.classList.toggle("open", run.dataset.run === select.value);
    showLatent(all(".chip", current())[0]);
  };
  const move = (by) => {
    const chips = all(".chip", current());
    const at = chips.findIndex((chip) => chip.getAttribute("aria-pressed") === "true");
    showLatent(chips[(at + by + chips.length) % chips.length]);
  };

  select.addEventListener("change", showRun);
  document.getElementById("latent-previous").addEventListener("click", () => move(-1));
  document.getElementById("latent-next").addEventListener("click", () => move(1));
  for (const chip of all(".chip")) chip.addEventListener("click", () => showLatent(chip));
  showRun();
})();
