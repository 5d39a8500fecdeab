rule data:
    output:
        touch(f"{RESULTS}/data/{{name}}.ready"),
    log:
        f"{RESULTS}/logs/data/{{name}}.log",
    wildcard_constraints:
        name=r"[A-Za-z0-9][A-Za-z0-9_.+-]*",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        on_data=ON_DATA,
    shell:
        "python -m spfde data {wildcards.name:q} {params.on_data:q} > {log:q} 2>&1"
