// Forms of APIs: there is always one more row for a header, and who writes in one of the two forms
// of a body has chosen it.
{
  const MOST = 100;

  document.addEventListener("input", ({ target }) => {
    const pair = target.closest?.(".pairs .pair");
    const pairs = pair?.parentElement.querySelectorAll(".pair");
    if (pair && pair === pairs[pairs.length - 1] && target.value && pairs.length < MOST) {
      const made = pair.cloneNode(true);
      for (const input of made.querySelectorAll("input")) {
        input.value = "";
        input.setAttribute("aria-label", input.getAttribute("aria-label").replace(/\d+$/, pairs.length + 1));
      }
      pair.after(made);
    }
    const made = target.name === "body" ? "raw" : target.closest?.(".parts") && "fields";
    const radio = made && target.form?.querySelector(`[name=body_as][value=${made}]`);
    if (radio) radio.checked = true;
  });
}
