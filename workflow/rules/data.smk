rule data:
    output:
        touch(f"{RESULTS}/data/{{name}}.ready"),
    log:
        f"{RESULTS}/logs/data/{{name}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        data_root=config["data_root"],
        cache=config["cache"],
    shell:
        "python -m spfde data {wildcards.name} --data-root {params.data_root:q} --cache {params.cache:q} > {log} 2>&1"
