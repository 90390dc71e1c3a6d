"""How the page looks, in light and in dark, as the browser prefers."""

PAGE = """
{% block postamble %}
<meta name="referrer" content="no-referrer">
<style>
  :root { --paper: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #5b6672; --line: #d5dae1; --accent: #1769c4;
          --on-accent: #ffffff; --bad: #c02626; --good: #14794a; color-scheme: light dark; }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #171b21; --card: #20262e; --ink: #e8ecf1; --soft: #a3afbc; --line: #38424e; --accent: #5aa9f5;
            --on-accent: #0c1117; --bad: #ff8a8a; --good: #5fd49b; }
  }
  html, body { margin: 0; height: 100%; overflow: hidden; background: var(--paper); color: var(--ink);
               font: 14px/1.4 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
</style>
{% endblock %}
"""

WIDGET = """
:host { color: var(--ink); font: 14px/1.4 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
label, .bk-slider-title, .bk-slider-value { color: var(--ink); font-size: 13px; }
.bk-input, select, input { background: var(--card); color: var(--ink); border: 1px solid var(--line);
                           border-radius: 6px; font-size: 13px; }
.bk-btn { background: var(--card); color: var(--ink); border: 1px solid var(--line); font-size: 13px;
          padding: 5px 10px; }
.bk-btn:hover { border-color: var(--accent); }
.bk-btn[disabled] { opacity: 0.4; }
.bk-btn.bk-active, .bk-btn.bk-btn-primary { background: var(--accent); color: var(--on-accent);
                                            border-color: var(--accent); box-shadow: none; }
.noUi-target { background: var(--line); border: none; box-shadow: none; }
.noUi-connect { background: var(--accent) !important; }
.noUi-handle { background: var(--card); border: 2px solid var(--accent); box-shadow: none; }
h1 { font-size: 15px; margin: 0; }
h2 { font-size: 13px; margin: 6px 0 0; text-transform: none; color: var(--ink); }
p { margin: 2px 0; }
.soft { color: var(--soft); font-size: 12.5px; }
.bad { color: var(--bad); }
.good { color: var(--good); }
.count { font-size: 26px; font-weight: 600; line-height: 1.15; }
.crops { display: flex; gap: 5px; flex-wrap: wrap; }
.crops img { width: 44px; height: 44px; object-fit: contain; background: #101418; border: 2px solid #ffd23f;
             border-radius: 5px; }
.bar { height: 6px; border-radius: 3px; background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 11.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace;
      background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 7px 9px; margin: 2px 0;
      max-height: 92px; overflow-y: auto; user-select: all; }
"""

SIDE = ":host { background: var(--paper); border-right: 1px solid var(--line); padding: 12px 14px; overflow-y: auto; }"
TOP = (
    ":host { background: var(--paper); border-bottom: 1px solid var(--line); padding: 8px 12px; align-items: center; }"
)
