const text = document.getElementById("text");
const task = document.getElementById("task");
const kind = document.getElementById("kind");
const count = document.getElementById("count");
function filter() {
  const wanted = text.value.toLowerCase();
  let shown = 0;
  for (const card of document.querySelectorAll("article")) {
    const fits = (!task.value || card.dataset.task === task.value) && (!kind.value || card.dataset.kind === kind.value)
      && (!wanted || card.textContent.toLowerCase().includes(wanted));
    card.hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} shown`;
}
for (const one of [text, task, kind]) one.addEventListener("input", filter);
