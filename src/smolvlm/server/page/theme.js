/* Runs before the first paint, so that a chosen theme doesn't flash. Loaded as a plain script; the switch is in main.js. */
try {
  const chosen = localStorage.getItem("smolvlm.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is forbidden here: the system's theme it is.
}
