"""How the page looks, in light and in dark, as the browser prefers; and what of it is no widget of Bokeh."""

PAGE = """
{% block postamble %}
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<style>
  :root { --paper: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #5b6672; --line: #d5dae1; --accent: #1769c4;
          --on-accent: #ffffff; --bad: #c02626; --good: #14794a; color-scheme: light dark; }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #171b21; --card: #20262e; --ink: #e8ecf1; --soft: #a3afbc; --line: #38424e; --accent: #5aa9f5;
            --on-accent: #0c1117; --bad: #ff8a8a; --good: #5fd49b; }
  }
  html, body { margin: 0; height: 100%; overflow: hidden; background: var(--paper); color: var(--ink);
               font: 14px/1.4 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
  body.dragged::after { content: "Drop images to open them"; position: fixed; inset: 12px; z-index: 9; display: grid;
                        place-items: center; font-size: 26px; border: 3px dashed var(--accent); border-radius: 14px;
                        background: color-mix(in srgb, var(--paper) 85%, transparent); pointer-events: none; }
</style>
<script>
  // Models are found by their names. What is said goes to the line above the picture.
  const fsisModel = (name) => Bokeh.documents[0].get_model_by_name(name);
  function fsisSay(text, kind) {
    const p = document.createElement("p");
    p.className = kind;
    p.textContent = text;
    fsisModel("message").text = p.outerHTML;
  }
  function fsisAsk(text) {
    fsisModel("asked").value = "";
    fsisModel("asked").value = text;
  }
  function fsisRename(row, old) {
    const name = prompt("Name of this kind", old);
    if (name) fsisAsk(`rename ${row} ${name}`);
  }
  async function fsisSend(files, most) {
    for (const file of [...files]) {
      if (file.size > most) {
        fsisSay(`${file.name}: larger than ${most >> 20} MB: name it or its folder in the command instead`, "bad");
        continue;
      }
      fsisSay(`${file.name}: on its way ...`, "soft");
      try {
        const answer = await fetch("upload?name=" + encodeURIComponent(file.name), { method: "POST", body: file });
        const text = await answer.text();
        if (answer.ok) fsisAsk("open " + text); else fsisSay(text, "bad");
      } catch (error) {
        fsisSay(`${file.name}: it did not arrive: is the command still running?`, "bad");
      }
    }
  }
  // A frame around the whole picture tells nobody anything.
  window.addEventListener("focusin", (event) => {
    const inner = event.composedPath()[0];
    if (inner.classList?.contains("bk-events")) inner.style.outline = "none";
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    window.addEventListener(kind, (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      const leaves = kind == "drop" || (kind == "dragleave" && !event.relatedTarget);
      document.body.classList.toggle("dragged", !leaves);
      if (kind == "drop") fsisSend(event.dataTransfer.files, {{ most_bytes }});
    });
  }
</script>
{% endblock %}
"""

WIDGET = """
:host { color: var(--ink); font: 14px/1.4 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
label, .bk-slider-title, .bk-slider-value { color: var(--ink); font-size: 13px; }
.bk-input, select, input { background-color: var(--card); color: var(--ink); border: 1px solid var(--line);
                           border-radius: 6px; font-size: 13px; }
.bk-input { height: 31px; min-height: 31px; }
select:not([multiple]).bk-input { background-image: url("data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' \
viewBox='0 0 20 20'%3E%3Cpath d='M4 7l6 7 6-7z' fill='%237d8894'/%3E%3C/svg%3E"); background-size: 13px; }
.bk-btn { background: var(--card); color: var(--ink); border: 1px solid var(--line); font-size: 13px;
          padding: 5px 8px; white-space: nowrap; }
:host(.third) .bk-btn { padding: 5px 0; width: 100%; }
.bk-btn:hover { border-color: var(--accent); }
.bk-btn[disabled], .bk-btn[disabled]:hover { opacity: 0.45; background: var(--card); color: var(--soft);
                                             border-color: var(--line); }
.bk-btn.bk-active, .bk-btn.bk-btn-primary { background: var(--accent); color: var(--on-accent);
                                            border-color: var(--accent); box-shadow: none; }
.noUi-target { background: var(--line); border: none; box-shadow: none; }
.noUi-connect { background: var(--accent) !important; }
.noUi-handle { background: var(--card); border: 2px solid var(--accent); box-shadow: none; }
h2 { font-size: 13.5px; margin: 5px 0 0; color: var(--ink); }
h2 i { display: inline-block; width: 19px; height: 19px; margin-right: 7px; border-radius: 50%; text-align: center;
       font: 600 12px/19px system-ui, sans-serif; background: var(--accent); color: var(--on-accent); }
p { margin: 0; }
.bk-clearfix { width: 100%; }
.soft { color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
.bad { color: var(--bad); font-size: 13px; overflow-wrap: anywhere; }
.good { color: var(--good); font-size: 12.5px; overflow-wrap: anywhere; }
.count { font-size: 24px; font-weight: 600; line-height: 1.1; }
.kind { display: flex; align-items: center; gap: 4px; min-height: 30px; margin: 0 -6px; padding: 0 6px;
        border-radius: 6px; }
.kind.on { background: var(--card); box-shadow: inset 3px 0 0 var(--kind); }
.kind > button { border: none; background: none; color: var(--soft); font-size: 13px; padding: 2px 3px; cursor: pointer;
                 opacity: 0; }
.kind:hover > button, .kind > button:focus { opacity: 1; }
.kind > button.name { opacity: 1; color: var(--ink); max-width: 150px; overflow: hidden; text-overflow: ellipsis;
                      white-space: nowrap; }
.kind.on > button.name { font-weight: 600; }
.kind > .name i, .legend i { display: inline-block; width: 10px; height: 10px; margin-right: 6px; border-radius: 50%;
                             background: var(--kind); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: 13px; }
.crops { display: flex; gap: 4px; flex-wrap: wrap; margin-left: auto; padding: 2px 0; }
.crops span { position: relative; width: 36px; height: 36px; }
.crops img { width: 32px; height: 32px; object-fit: contain; background: #101418; border: 2px solid var(--kind);
             border-radius: 5px; }
.crops button { position: absolute; right: -4px; top: -4px; width: 17px; height: 17px; padding: 0; border: none;
                border-radius: 50%; font: 12px/17px sans-serif; background: var(--ink); color: var(--paper);
                cursor: pointer; opacity: 0; }
.crops span:hover button, .crops button:focus { opacity: 1; }
.choose { display: block; box-sizing: border-box; width: 104px; height: 31px; padding: 5px 8px; text-align: center;
          border: 1px solid var(--line); border-radius: 4px; background: var(--card); cursor: pointer; }
.choose:hover, .choose:focus-within { border-color: var(--accent); }
.choose input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.bar { height: 6px; margin-top: 3px; border-radius: 3px; background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
summary { font-size: 12.5px; color: var(--soft); cursor: pointer; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 11.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace;
      background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 6px 9px; margin: 3px 0 0;
      user-select: all; }
"""

SIDE = (
    ":host { background: var(--paper); border-right: 1px solid var(--line); padding: 10px 14px; overflow-y: auto; "
    "overflow-x: hidden; box-sizing: border-box; scrollbar-width: thin; }"
)
TOP = ":host { background: var(--paper); border-bottom: 1px solid var(--line); padding: 8px 12px; }"
