// What every part of the script stands on. The parts are put together into one module, in the
// order of their names; each keeps its own names in a block, and shares through `scheduler`.
const scheduler = {
  // What a form of this session sends along.
  form: document.querySelector("meta[name=form]")?.content ?? "",

  // Send fields to one of our own addresses, as a form does; the answer, whatever it says.
  send(address, fields = {}, options = {}) {
    const body = new URLSearchParams(fields);
    body.set("form", scheduler.form);
    return fetch(address, { method: "POST", body, ...options });
  },

  // The markup of one of our own pages, as nodes. Nothing of it runs: the policy forbids it.
  nodes(markup) {
    const made = document.createElement("template");
    made.innerHTML = markup;
    return made.content;
  },
};
